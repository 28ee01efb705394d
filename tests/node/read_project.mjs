// Reads a DeepCell Label project as its web client does, and prints what the client would get as one JSON object.
//
//     node read_project.mjs PROJECT.zip
//
// The packages come from node_modules beside this file, or from the folder named in ATLASWRITER_NODE_MODULES.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const packages = process.env.ATLASWRITER_NODE_MODULES || fileURLToPath(new URL("node_modules", import.meta.url));
const { resolve } = createRequire(join(packages, "..", "from-here.mjs"));
const load = (name) => import(pathToFileURL(resolve(name)));

const TEXT_MEMBERS = ["cells.json", "divisions.json", "cellTypes.json", "embeddings.json", "channels.json", "spots.csv"];

const zip = await load("@zip.js/zip.js");
const { loadOmeTiff } = await load("@vivjs/loaders");
zip.configure({ useWebWorkers: false });

// Of the browser's FileReader, which Node lacks, what geotiff needs.
globalThis.FileReader = class {
  readAsArrayBuffer(blob) {
    blob.arrayBuffer().then((result) => this.onload({ target: { result } }), this.onerror);
  }
};

// Frames are on Z: the client always asks for t = 0.
async function readImage(blob, name) {
  const started = performance.now();
  const { data, metadata } = await loadOmeTiff(new File([blob], name));
  const [source] = data;
  const size = (axis) => source.shape[source.labels.indexOf(axis)];
  const [channels, frames] = [size("c"), size("z")];
  const planes = [];
  let array, height, width;
  for (let c = 0; c < channels; c++) {
    for (let z = 0; z < frames; z++) {
      const raster = await source.getRaster({ selection: { t: 0, c, z } });
      ({ height, width } = raster);
      array = raster.data.constructor.name;
      // The client cuts rows from the start of the buffer, wherever the raster lies in it.
      planes.push(Buffer.from(raster.data.buffer, 0, raster.data.byteLength).toString("base64"));
    }
  }
  return {
    levels: data.length,
    shape: [channels, frames, height, width],
    size: [size("c"), size("z"), size("y"), size("x")],
    times: size("t"),
    dtype: source.dtype,
    array,
    names: metadata.Pixels.Channels.map((channel) => channel.Name ?? null),
    planes,
    seconds: (performance.now() - started) / 1000,
  };
}

async function readProject(path) {
  const reader = new zip.ZipReader(new zip.BlobReader(new Blob([await readFile(path)])));
  const project = { members: [], images: {}, text: {} };
  for (const entry of await reader.getEntries()) {
    project.members.push(entry.filename);
    if (entry.filename.endsWith(".ome.tiff")) {
      const blob = await entry.getData(new zip.BlobWriter());
      project.images[entry.filename] = await readImage(blob, entry.filename);
    } else if (TEXT_MEMBERS.includes(entry.filename)) {
      project.text[entry.filename] = await entry.getData(new zip.TextWriter());
    }
  }
  await reader.close();
  return project;
}

process.stdout.write(JSON.stringify(await readProject(process.argv[2])));
