"""DeepCell Label projects: an image, its labels, and what the labels mean, in one zip."""
