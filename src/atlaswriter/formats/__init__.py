"""What the bytes mean, one package a format."""
