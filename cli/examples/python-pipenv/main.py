import sys

import charset_normalizer
import idna

print(idna.encode("münchen.de").decode(), charset_normalizer.from_bytes(b"abc").best() is not None, *sys.argv[1:])
