"""Bytes -> arrays -> descriptors of images, clips and sounds, decoded in a sandbox. Imports `tables`."""
