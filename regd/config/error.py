"""The one exception that a bad configuration raises."""

from __future__ import annotations

__all__ = ["ConfigError", "one_line", "shown"]

#: A quotation longer than this says no more.
_LONGEST_QUOTATION = 80


class ConfigError(Exception):
    """A configuration that regd must not start with.

    ``str()`` is always one line: the path of the key, what was found, what is allowed.

    :ivar problems: every problem that was found, one line each; the first one is ``str()``.
    """

    def __init__(self, *problems: str) -> None:
        self.problems: tuple[str, ...] = tuple(one_line(problem) for problem in problems)
        super().__init__(self.problems[0] if self.problems else "the configuration is not usable")

    @classmethod
    def joined(cls, errors: list[ConfigError]) -> ConfigError:
        """Make one error of several.

        :param errors: at least one; the order is kept.
        """
        return cls(*(problem for error in errors for problem in error.problems))


def one_line(text: str) -> str:
    """Keep a message on one line of printable characters, whatever a file name or a YAML message holds."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def shown(text: str) -> str:
    """Quote something that was found, short enough for a line; :class:`ConfigError` makes the rest printable."""
    return f'"{text}"' if len(text) <= _LONGEST_QUOTATION else f'"{text[:_LONGEST_QUOTATION]}..."'
