"""HTML from standard input, as Markdown on standard output: a program of its own, as pages are hostile.

The library is native code, and some pages make it take thousands of times their size. Here that ends in this process.

Usage: convert_html.py BASE_URL MAX_CHARACTERS
"""

from __future__ import annotations

import resource
import sys

_MEMORY = 1 << 30  # bytes of address space: ordinary pages take a tenth
_CPU = 10  # seconds; ordinary pages take some hundredths of one
_DEPTH = 100  # levels of elements that are read; pages that people wrote stay below


def main() -> None:
    """Converts, and writes at most so many characters, and one more if there are more."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU, _CPU))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from html_to_markdown import ConversionOptions, convert  # under the limits

    base_url, most = sys.argv[1], int(sys.argv[2])
    options = ConversionOptions(
        base_url=base_url,
        max_depth=_DEPTH,
        inline_data_media="alt_text_only",
        compact_tables=True,
        extract_metadata=False,
    )
    html = sys.stdin.buffer.read().decode()
    text = convert(html, options).content or ""
    sys.stdout.buffer.write(text.strip()[: most + 1].encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
