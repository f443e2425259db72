"""The tree on disk: that it is the one that is drawn, and that no name leads out of it."""

from __future__ import annotations

import ast
import pathlib
import posixpath
import re
import uuid
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.errors import DigestInvalid, NameInvalid, TagInvalid
from regd.names import Digest, RepositoryName, Tag
from regd.storage import layout
from regd.storage.layout import Path, UploadId

NAME = RepositoryName.parse("library/alpine")
TAG = Tag.parse("v1.0")
DIGEST = Digest.parse("sha256:ab" + "c" * 62)
SUBJECT = Digest.parse("sha512:de" + "f" * 126)
UPLOAD = UploadId.parse("0b7a1a4e-8a1c-4e4f-9c3b-2f6d5e4c3b2a")

PACKAGE = pathlib.Path(layout.__file__).parent.parent

COMPONENTS = st.from_regex(re.compile(r"[a-z0-9]{1,9}((\.|_|__|-{1,9})[a-z0-9]{1,9}){0,3}", re.ASCII), fullmatch=True)
NAMES = st.lists(COMPONENTS, min_size=1, max_size=6).map("/".join)
HOSTILE = st.text("ab/._-\\\0%2efF:", max_size=30) | st.sampled_from(
    ["..", "../..", "a/../../b", "/etc/passwd", ".", "", "a/..", "_layers", "a/_layers", "sha256:..", "sha256:../" + "a" * 61]
)


def all_paths(name: RepositoryName, tag: Tag, digest: Digest, subject: Digest, upload: UploadId) -> dict[str, Path]:
    """
    :return: what each function of the layout makes of these.
    """
    return {
        "blob": layout.blob(digest),
        "blob_data": layout.blob_data(digest),
        "blobs": layout.blobs(digest.algorithm, digest.hex[:2]),
        "cached": layout.cached(name, digest),
        "cached_root": layout.cached_root(name, digest.algorithm),
        "collecting": layout.collecting(),
        "collector": layout.collector(),
        "damaged": layout.damaged(digest),
        "damaged_blobs": layout.damaged_blobs(digest.algorithm),
        "fetch": layout.fetch(digest),
        "fetch_size": layout.fetch_size(digest),
        "fetch_turn": layout.fetch_turn(digest),
        "fetches": layout.fetches(digest.algorithm),
        "fetching": layout.fetching(digest),
        "gate": layout.gate(),
        "gate_queue": layout.gate_queue(),
        "layer": layout.layer(name, digest),
        "layers": layout.layers(name, digest.algorithm),
        "layer_link": layout.layer_link(name, digest),
        "manifests": layout.manifests(name),
        "own": layout.own(),
        "referrer": layout.referrer(name, subject, digest),
        "referrer_link": layout.referrer_link(name, subject, digest),
        "referrers": layout.referrers(name, subject, digest.algorithm),
        "referrers_root": layout.referrers_root(name, subject.algorithm),
        "notifications": layout.notifications("sender"),
        "report": layout.report("collection"),
        "repositories": layout.repositories(),
        "repository": layout.repository(name),
        "revision": layout.revision(name, digest),
        "revision_link": layout.revision_link(name, digest),
        "revisions": layout.revisions(name, digest.algorithm),
        "scrubbing": layout.scrubbing(),
        "signatures": layout.signatures(name, digest, subject.algorithm),
        "tag": layout.tag(name, tag),
        "tag_index": layout.tag_index(name, tag, digest.algorithm),
        "tag_index_link": layout.tag_index_link(name, tag, digest),
        "tag_link": layout.tag_link(name, tag),
        "tags": layout.tags(name),
        "trash": layout.trash("run", 7),
        "turn": layout.turn(f"{name} {tag} {digest}"),
        "upload": layout.upload(name, upload),
        "upload_data": layout.upload_data(name, upload),
        "upload_digest": layout.upload_digest(name, upload, "sha256", 1234),
        "upload_started": layout.upload_started(name, upload),
        "uploads": layout.uploads(name),
    }


class DrawingTest(SynchronousTestCase):
    def test_paths(self) -> None:
        """The tree of registry:2, registry/storage/paths.go, and what regd adds."""
        repository = "docker/registry/v2/repositories/library/alpine"
        split = f"sha256/ab{'c' * 62}"
        self.assertEqual(
            all_paths(NAME, TAG, DIGEST, SUBJECT, UPLOAD),
            {
                "blob": f"docker/registry/v2/blobs/sha256/ab/ab{'c' * 62}",
                "blob_data": f"docker/registry/v2/blobs/sha256/ab/ab{'c' * 62}/data",
                "blobs": "docker/registry/v2/blobs/sha256/ab",
                "cached": f"{repository}/_cache/{split}",
                "cached_root": f"{repository}/_cache/sha256",
                "collecting": "regd/collecting",
                "collector": "regd/collector",
                "damaged": f"regd/damaged/{split}/data",
                "damaged_blobs": "regd/damaged/sha256",
                "fetch": f"regd/fetching/{split}",
                "fetch_size": f"regd/fetching/{split}/size",
                "fetch_turn": "regd/turns/fetch.ab",
                "fetches": "regd/fetching/sha256",
                "fetching": f"regd/fetching/{split}/data",
                "gate": "regd/gate",
                "gate_queue": "regd/gate.queue",
                "layer": f"{repository}/_layers/{split}",
                "layers": f"{repository}/_layers/sha256",
                "layer_link": f"{repository}/_layers/{split}/link",
                "manifests": f"{repository}/_manifests",
                "own": "regd",
                "referrer": f"{repository}/_referrers/sha512/de{'f' * 126}/{split}",
                "referrer_link": f"{repository}/_referrers/sha512/de{'f' * 126}/{split}/link",
                "referrers": f"{repository}/_referrers/sha512/de{'f' * 126}/sha256",
                "referrers_root": f"{repository}/_referrers/sha512",
                "notifications": "regd/notifications/sender",
                "report": "regd/collection.json",
                "repositories": "docker/registry/v2/repositories",
                "repository": repository,
                "revision": f"{repository}/_manifests/revisions/{split}",
                "revision_link": f"{repository}/_manifests/revisions/{split}/link",
                "revisions": f"{repository}/_manifests/revisions/sha256",
                "scrubbing": "regd/scrub",
                "signatures": f"{repository}/_manifests/revisions/{split}/signatures/sha512",
                "tag": f"{repository}/_manifests/tags/v1.0",
                "tag_index": f"{repository}/_manifests/tags/v1.0/index/sha256",
                "tag_index_link": f"{repository}/_manifests/tags/v1.0/index/{split}/link",
                "tag_link": f"{repository}/_manifests/tags/v1.0/current/link",
                "tags": f"{repository}/_manifests/tags",
                "trash": "regd/trash/run/7",
                "turn": "regd/turns/fe7",
                "upload": f"{repository}/_uploads/{UPLOAD}",
                "upload_data": f"{repository}/_uploads/{UPLOAD}/data",
                "upload_digest": f"{repository}/_uploads/{UPLOAD}/digests/sha256/1234",
                "upload_started": f"{repository}/_uploads/{UPLOAD}/startedat",
                "uploads": f"{repository}/_uploads",
            },
        )

    def test_every_function_is_tried_here(self) -> None:
        functions = {name for name in layout.__all__ if name[0].islower()}
        self.assertEqual(functions - {"above", "inside"}, set(all_paths(NAME, TAG, DIGEST, SUBJECT, UPLOAD)))

    def test_every_path_is_in_the_drawing(self) -> None:
        drawn = _drawn(layout.__doc__ or "")
        for function, path in all_paths(NAME, TAG, DIGEST, SUBJECT, UPLOAD).items():
            general = path.replace(str(UPLOAD), "<uuid>").replace("library/alpine", "<name>").replace("v1.0", "<tag>")
            general = general.replace(f"/ab/ab{'c' * 62}", "/<hex[0:2]>/<hex>").replace("sha512", "<alg>").replace("sha256", "<alg>")
            general = general.replace(f"ab{'c' * 62}", "<hex>").replace(f"de{'f' * 126}", "<hex>").replace("1234", "<offset>")
            general = general.replace("run/7", "<run>/<number>").replace("turns/fe7", "turns/<number>")
            general = general.replace("fetch.ab", "fetch.<number>")
            general = general.replace("<alg>/ab", "<alg>/<hex[0:2]>")
            self.assertTrue(any(line == general or line.startswith(f"{general}/") for line in drawn), f"{function}: {general}")

    def test_the_top_of_all_repositories(self) -> None:
        self.assertEqual(layout.repository(""), layout.repositories())

    def test_the_tops_of_what_is_kept_by_algorithm(self) -> None:
        for function, arguments in (
            (layout.blobs, ()),
            (layout.damaged_blobs, ()),
            (layout.fetches, ()),
            (layout.cached_root, (NAME,)),
            (layout.layers, (NAME,)),
            (layout.revisions, (NAME,)),
            (layout.signatures, (NAME, DIGEST)),
            (layout.tag_index, (NAME, TAG)),
            (layout.referrers_root, (NAME,)),
            (layout.referrers, (NAME, SUBJECT)),
        ):
            # Any: the functions take different arguments.
            make: Any = function
            self.assertEqual(f"{make(*arguments)}/sha512", make(*arguments, "sha512"))

    def test_above(self) -> None:
        path = layout.blob_data(DIGEST)
        self.assertEqual(layout.above(path), layout.blob(DIGEST))
        self.assertEqual(layout.above(path, 2), layout.blobs("sha256", "ab"))
        self.assertEqual(layout.above(layout.own()), "")

    def test_inside(self) -> None:
        self.assertEqual(layout.inside(layout.own(), "gate"), layout.gate())
        self.assertEqual(layout.inside(layout.own(), "trash", "run"), layout.trash("run"))

    def test_nobody_else_makes_a_path_of_pieces(self) -> None:
        made = []
        for module in sorted(PACKAGE.rglob("*.py")):
            tree = ast.parse(module.read_bytes())
            imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "regd.storage.layout"]
            if module.name == "layout.py" or not any(name.name == "Path" for node in imports for name in node.names):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Path":
                    made += [f"{module.name}:{node.lineno}" for one in node.args if not isinstance(one, ast.Name | ast.Attribute)]
        self.assertEqual(made, [])

    def test_the_documentation_draws_the_same_tree(self) -> None:
        text = (PACKAGE.parent / "docs" / "storage.rst").read_text()
        # It stands one column further to the left there, below a name for the root.
        self.assertEqual(_drawn(text.replace("\n   ", "\n    ")), _drawn(layout.__doc__ or ""))


def _drawn(text: str) -> list[str]:
    """
    :return: the paths of a drawing of a tree, each whole.
    """
    above: list[tuple[int, str]] = []
    found = []
    for line in text.splitlines():
        match = re.match(r" {4}([│ ]*[├└]── )(\S+)", line)
        if match is None:
            continue
        depth = len(match[1])
        while above and above[-1][0] >= depth:
            above.pop()
        above.append((depth, match[2]))
        found.append("/".join(part for _, part in above))
    return found


class BelowTheRootTest(SynchronousTestCase):
    def inside(self, paths: dict[str, Path]) -> None:
        for path in paths.values():
            self.assertTrue(f"{path}/".startswith(("docker/registry/v2/", "regd/")), path)
            self.assertEqual(posixpath.normpath(path), path)
            for component in path.split("/"):
                self.assertNotIn(component, ("", ".", ".."))
                self.assertLessEqual(len(component.encode()), 255)

    @given(NAMES, st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True), st.binary(), st.uuids())
    @example("a" * 255, "a" * 128, b"", uuid.UUID(int=0))
    def test_every_path_is(self, name: str, tag: str, content: bytes, upload: uuid.UUID) -> None:
        if len(name) > 255:
            return
        for algorithm in ("sha256", "sha512"):
            digest = Digest.of(content, algorithm)
            self.inside(all_paths(RepositoryName.parse(name), Tag.parse(tag), digest, digest, UploadId.parse(str(upload))))

    @given(HOSTILE | st.text(), HOSTILE | st.text(), HOSTILE | st.text(), HOSTILE | st.text())
    def test_what_would_not_be_never_becomes_a_name(self, name: str, tag: str, digest: str, upload: str) -> None:
        # Each part that is refused is replaced by one that is right, so that each that is taken is seen in its paths.
        parts = []
        for parse, text, right in (
            (RepositoryName.parse, name, NAME),
            (Tag.parse, tag, TAG),
            (Digest.parse, digest, DIGEST),
            (UploadId.parse, upload, UPLOAD),
        ):
            try:
                parts.append(parse(text))
            except (NameInvalid, TagInvalid, DigestInvalid, ValueError):
                parts.append(right)
        self.inside(all_paths(parts[0], parts[1], parts[2], parts[2], parts[3]))  # type: ignore[arg-type]  # in this order


class UploadIdTest(SynchronousTestCase):
    def test_new_ones(self) -> None:
        made = {UploadId.new() for _ in range(100)}
        self.assertEqual(len(made), 100)
        for upload in made:
            self.assertEqual(UploadId.parse(upload), upload)

    def test_any_version(self) -> None:
        # registry:2 makes version 4, registry:3 version 7.
        for text in ("0b7a1a4e-8a1c-4e4f-9c3b-2f6d5e4c3b2a", "018f4d5e-1c2b-7a3d-8e4f-5a6b7c8d9e0f", str(uuid.UUID(int=0))):
            self.assertEqual(UploadId.parse(text), text)

    def test_what_is_none(self) -> None:
        text = str(UPLOAD)
        for wrong in (
            "", "..", "../x", "x", text.upper(), text.replace("-", ""), f"{{{text}}}", f"urn:uuid:{text}", f"{text}\n", f" {text}",
            text[:-1], f"{text}0", f"{text}/..", f"{text}/data", text.replace("0", "\u0660"), "\0" * 36, "\ud800" * 36,
            text.replace("-", "_"),
        ):  # fmt: skip
            self.assertRaises(ValueError, UploadId.parse, wrong)

    @given(st.text() | st.text("0123456789abcdefABCDEF-{}_", min_size=30, max_size=40))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            parsed = UploadId.parse(text)
        except ValueError:
            return
        self.assertEqual(str(uuid.UUID(parsed)), text)
