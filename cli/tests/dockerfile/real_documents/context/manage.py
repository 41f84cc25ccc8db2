import functools
import http.server
import sys

if sys.argv[1:] == ["serve"]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="static")
    http.server.HTTPServer(("", 8000), handler).serve_forever()
sys.exit(0 if sys.argv[1:] == ["check"] else 1)
