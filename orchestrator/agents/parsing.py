"""A model's reply -> the code it wants to run. Pure text work.

The code is never parsed or compiled here: CPython's parser and compiler can be crashed by hostile source (deep nesting,
huge literals), and this is the host. Where a block ends is decided by its tag or fence and by a small scanner that
knows Python's string literals and comments, so that ``print("</code>")`` does not end a block.

What counts as code is told in blocks.py: tags, else Python fences, else bare fences. All blocks of the best kind found
are joined in order. Fences of other languages are never code, and neither is bare prose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.agents.blocks import Kind, split_blocks
from orchestrator.agents.thinking import past_thinking
from orchestrator.errors import AgentError

MAX_CODE_CHARS = 1_000_000  # a step of code is some pages; this much is a reply gone wrong, or an attack


@dataclass(frozen=True, slots=True)
class CodeTags:
    """What the model is told to put around its code, and what is looked for in its reply: one setting for both."""

    opening: str = "<code>"
    closing: str = "</code>"

    @classmethod
    def of(cls, setting: tuple[str, str] | Literal["markdown"] | CodeTags | None) -> CodeTags:
        """The tags of the setting ``code_block_tags``: a pair, ``"markdown"``, or None for the default pair.

        Raises:
            AgentError: it is something else.
        """
        match setting:
            case None:
                return cls()
            case CodeTags(opening, closing) if opening.strip() and closing.strip():
                return setting
            case "markdown":
                return cls("```python", "```")
            case (str(opening), str(closing)) if opening.strip() and closing.strip():
                return cls(opening, closing)
        raise AgentError(f"code_block_tags must be a pair of texts or 'markdown', not {setting!r}")

    @property
    def stop_sequence(self) -> str | None:
        """Ends a reply after its code. At the start of a line only, so that the tag in a literal does not stop it.

        None where the closing is part of the opening: it would stop the reply before its code.
        """
        return None if self.closing in self.opening else f"\n{self.closing}"


@dataclass(frozen=True, slots=True)
class CodeAction:
    """Code that the model wants to run, and what it wrote before it. ``cut``: the last block's closing was missing."""

    code: str
    thought: str
    cut: bool = False


@dataclass(frozen=True, slots=True)
class FormatError:
    """The reply has no usable action. ``message`` is written for the model: what is wrong, and the expected form."""

    message: str


def extract_code(reply: str, tags: CodeTags) -> CodeAction | FormatError:
    """The code in ``reply``, or what to tell the model when there is none."""
    text = reply[past_thinking(reply) :]
    blocks = [block for block in split_blocks(text, tags.opening, tags.closing) if block.code]
    best = max((block.kind for block in blocks), default=Kind.OTHER)
    if best is Kind.OTHER:
        return FormatError(_no_code(text, tags))
    chosen = [block for block in blocks if block.kind is best]
    if any(not block.inline for block in chosen):  # then "between <code> and </code>" was a mention
        chosen = [block for block in chosen if not block.inline]
    code = "\n\n".join(block.code for block in chosen)
    return checked_length(CodeAction(code, text[: chosen[0].start].strip(), chosen[-1].cut))


def checked_length(action: CodeAction) -> CodeAction | FormatError:
    """``action``, unless its code is longer than can be meant."""
    if len(action.code) > MAX_CODE_CHARS:
        return FormatError(
            f"Your code has {len(action.code)} characters; at most {MAX_CODE_CHARS} are run. Write less."
        )
    return action


def _no_code(text: str, tags: CodeTags) -> str:
    wrong = "has an empty code block" if tags.opening in text else "has no code block"
    hint = ""
    if "final" in text.lower() and "answer" in text.lower():
        hint = f"\nTo give the final answer, call it in code:\n{tags.opening}\nfinal_answer(…)\n{tags.closing}"
    return (
        f"Your reply {wrong}. Write your thoughts, then Python code in exactly this form:\n"
        f"Thought: what you do in this step and why\n{tags.opening}\n# Python code\n{tags.closing}{hint}"
    )
