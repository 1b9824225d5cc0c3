"""A model as a folder of static files that a browser computes from: ONNX graphs, their weights, and one page. Docs: docs/web.md."""
