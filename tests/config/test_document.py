"""YAML to nodes that know where they stand."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.config.document import ListNode, MapNode, Node, Scalar, is_null, parse_document
from regd.config.error import ConfigError


def plain(node: Node) -> object:
    """
    :return: The node as dicts, lists and texts; a quoted text is in a tuple of its own.
    """
    match node:
        case Scalar():
            return node.text if node.plain else (node.text,)
        case ListNode():
            return [plain(item) for item in node.items]
        case MapNode():
            return {name: plain(below) for name, below in node.entries.items()}


class DocumentTests(SynchronousTestCase):
    def read(self, text: str | bytes) -> object:
        return plain(parse_document(text, "FILE")[0])

    def problem(self, text: str | bytes) -> str:
        return str(self.assertRaises(ConfigError, parse_document, text, "FILE"))

    def test_values_stay_as_they_were_typed(self) -> None:
        text = "a: 0123\nb: '0123'\nc: yes\nd: [1.0, ~, :5000]\ne: |\n  x\nf: !!str 5\ng: !!int '5'\n"
        expected = {"a": "0123", "b": ("0123",), "c": "yes", "d": ["1.0", "~", ":5000"], "e": ("x\n",), "f": ("5",), "g": "5"}
        self.assertEqual(self.read(text.replace("[1.0, ~, :5000]", "\n- 1.0\n- ~\n- :5000")), expected)

    def test_origin_is_the_line_or_what_is_given(self) -> None:
        node, _ = parse_document("a:\n  b: 1", "FILE")
        assert isinstance(node, MapNode)
        below = node.entries["a"]
        assert isinstance(below, MapNode)
        self.assertEqual(below.entries["b"].origin, "line 2")
        self.assertEqual(parse_document("1", "X", "REGISTRY_X")[0].origin, "REGISTRY_X")

    def test_nothing(self) -> None:
        for text in ("", "# a comment\n", "---\n", "~", "null", "Null", "NULL"):
            self.assertTrue(is_null(parse_document(text, "FILE")[0]), text)
        for text in ("''", "nil", "0", "'null'", "[]", "{}"):
            self.assertFalse(is_null(parse_document(text, "FILE")[0]), text)

    def test_encodings(self) -> None:
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            self.assertEqual(self.read("a: \u00e4".encode(encoding)), {"a": "\u00e4"})
        self.assertEqual(self.problem(b"a: \xff"), "FILE: not YAML: it holds characters or escapes that YAML does not allow")

    def test_anchors_and_merges(self) -> None:
        text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: *a, x: 5}\nd: {z: 6, <<: [*a, *b]}\n"
        read = self.read(text)
        assert isinstance(read, dict)
        self.assertEqual(read["c"], {"x": "5", "y": "2"})
        self.assertEqual(read["d"], {"x": "1", "y": "2", "z": "6"})
        self.assertEqual(self.read("{'<<': a}"), {"<<": "a"})

    def test_an_anchor_may_be_set_again(self) -> None:
        self.assertEqual(self.read("[&a 1, *a, &a 2, *a]"), ["1", "1", "2", "2"])

    def test_only_the_first_document_is_read(self) -> None:
        self.assertEqual(parse_document("a\n...\n", "FILE")[1], False)
        for text in ("a\n--- b\n", "a\n---\n[", "a\n---\n"):
            node, more = parse_document(text, "FILE")
            self.assertEqual((plain(node), more), ("a", True))

    def test_what_is_refused(self) -> None:
        for text, problem in {
            "a: b: c": "FILE: line 1, column 5: not YAML: mapping values are not allowed here",
            "a:\n\t- b": "FILE: line 2, column 1: not YAML: found character '\\t' that cannot start any token",
            "a: 1\nb: 2\na: 3": 'FILE: line 3: the key "a" is given twice, first in line 1',
            "? [a]\n: b": "FILE: line 1: a list or a map cannot be a key",
            "a: *b": "FILE: line 1: an alias (*) needs an anchor (&) that ends before it",
            "&a [*a]": "FILE: line 1: an alias (*) needs an anchor (&) that ends before it",
            "<<: a": "FILE: line 1: << merges maps and lists of maps, nothing else",
            "<<: [{a: b}, c]": "FILE: line 1: << merges maps and lists of maps, nothing else",
            "a: !!binary Zm9v": "FILE: line 1: a tag (!) that a configuration cannot have",
            "a: !!python/object/apply:os.system [ls]": "FILE: line 1: a tag (!) that a configuration cannot have",
            'a: "\\UFFFFFFFF"': "FILE: not YAML: it holds characters or escapes that YAML does not allow",
            "a: \x00": "FILE: not YAML: it holds characters or escapes that YAML does not allow",
            "[" * 65 + "]" * 65: "FILE: line 1: nested deeper than 64 levels",
        }.items():
            self.assertEqual(self.problem(text), problem)

    def test_names_of_aliases_and_tags_are_not_told(self) -> None:
        """A password that starts with ``*`` or ``!`` and is not quoted must not reach the log."""
        for text in ("secret: *hunter2", "secret: !hunter2", "secret: !hunter2 x", "secret: !hunter2! x"):
            self.assertNotIn("hunter2", self.problem(text))

    def test_bombs(self) -> None:
        """What a few lines unfold to takes neither time nor memory."""
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
        merges = ["m: &m {" + ", ".join(f"k{n}: v" for n in range(3000)) + "}", "n:" + "\n  <<: *m" * 20_000]
        before = time.process_time()
        self.assertIn("more than 50000 values", self.problem("\n".join(lines)))
        self.assertIn("merges more than 50000 values", self.problem("\n".join(merges)))
        self.assertIn("nested deeper", self.problem("[" * 1_000_000))
        self.assertIn("nested deeper", self.problem("{a: " * 1_000_000))
        self.assertLess(time.process_time() - before, 20)

    @given(st.binary(max_size=200) | st.text(max_size=200) | st.text("abc01:-[]{}&*!|>'\"#%@,?<~ \n\t\\U", max_size=80))
    def test_any_text_is_read_or_refused(self, text: bytes | str) -> None:
        try:
            parse_document(text, "FILE")
        except ConfigError as error:
            self.assertTrue(str(error).startswith("FILE:"))
            self.assertTrue(str(error).isprintable())
