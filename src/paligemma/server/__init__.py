"""A loaded model as a service: HTTP for programs, a page for people. Needs the extra `paligemma[serve]`."""
