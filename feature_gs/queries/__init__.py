"""Questions to a trained scene: a point, a box, a patch, words, or everything."""
