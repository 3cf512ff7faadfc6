"""Show it: documents and pictures of what was found and done."""
