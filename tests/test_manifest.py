"""Manifests: what each kind refers to, what is refused and how it is said, and that no bytes whatever make the parser fail otherwise."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.errors import ManifestInvalid
from regd.manifest import (
    DOCKER_IMAGE,
    DOCKER_LIST,
    MEDIA_TYPES,
    OCI_ARTIFACT,
    OCI_IMAGE,
    OCI_INDEX,
    SCHEMA_1,
    Descriptor,
    Platform,
    media_type_of,
    parse,
)
from regd.names import Digest

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

#: Names that mean something in a manifest, so that made-up documents are sometimes nearly right.
FIELDS = st.sampled_from(
    [
        "schemaVersion", "mediaType", "config", "layers", "manifests", "blobs", "subject", "artifactType", "annotations", "digest", "size",
        "urls", "platform", "os", "architecture",
    ]
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([2, *sorted(MEDIA_TYPES), *sorted(SCHEMA_1), "sha256:" + "a" * 64])
)
DOCUMENTS = st.dictionaries(
    FIELDS,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=4), inner, max_size=5), max_leaves=12
    ),
)
CONTENT_TYPES = st.sampled_from(["", "application/json", *sorted(MEDIA_TYPES), *sorted(SCHEMA_1)]) | st.text(max_size=30)


def descriptor(content: bytes, media_type: str = LAYER_TYPE, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content), **more}


def image(**more: object) -> dict[str, Any]:
    return {"schemaVersion": 2, "config": descriptor(b"{}", CONFIG_TYPE), "layers": [descriptor(b"one"), descriptor(b"two")], **more}


def index(**more: object) -> dict[str, Any]:
    return {"schemaVersion": 2, "manifests": [descriptor(b"child", OCI_IMAGE)], **more}


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


class KindsTest(SynchronousTestCase):
    def test_images(self) -> None:
        for media_type in (OCI_IMAGE, DOCKER_IMAGE):
            for document, content_type in (
                (image(mediaType=media_type), ""),
                (image(mediaType=media_type), media_type),
                (image(mediaType=media_type), f"{media_type.upper()} ; charset=utf-8"),
                (image(mediaType=media_type), "application/json"),
                (image(mediaType=media_type), "application/octet-stream"),
            ):
                manifest = parse(encoded(document), content_type)
                self.assertEqual(manifest.media_type, media_type)
                self.assertEqual([blob.digest for blob in manifest.blobs], [Digest.of(b"{}"), Digest.of(b"one"), Digest.of(b"two")])
                self.assertEqual([blob.size for blob in manifest.blobs], [2, 3, 3])
                self.assertEqual(manifest.manifests, ())
                self.assertIsNone(manifest.subject)

    def test_indexes(self) -> None:
        child = descriptor(b"child", OCI_IMAGE, platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
        for media_type in (OCI_INDEX, DOCKER_LIST):
            manifest = parse(encoded(index(manifests=[child], mediaType=media_type)))
            self.assertEqual(manifest.media_type, media_type)
            self.assertEqual(manifest.blobs, ())
            self.assertEqual(manifest.manifests[0].digest, Digest.of(b"child"))
            self.assertEqual(manifest.manifests[0].platform, Platform("linux", "arm64"))

    def test_artifacts_need_no_schema_version_and_no_blobs(self) -> None:
        document = {"mediaType": OCI_ARTIFACT, "artifactType": "application/x", "blobs": [descriptor(b"a")], "subject": descriptor(b"s")}
        manifest = parse(encoded(document))
        self.assertEqual([blob.digest for blob in manifest.blobs], [Digest.of(b"a")])
        self.assertEqual(manifest.artifact_type, "application/x")
        assert manifest.subject is not None
        self.assertEqual(manifest.subject.digest, Digest.of(b"s"))
        self.assertEqual(parse(encoded({"mediaType": OCI_ARTIFACT})).blobs, ())

    def test_without_a_media_type_the_fields_tell(self) -> None:
        self.assertEqual(parse(encoded(image())).media_type, OCI_IMAGE)
        self.assertEqual(parse(encoded(index())).media_type, OCI_INDEX)
        self.assertEqual(parse(encoded(index(manifests=[]))).media_type, OCI_INDEX)

    def test_a_list_that_go_wrote_as_null_is_empty(self) -> None:
        self.assertEqual(parse(encoded(index(manifests=None)), OCI_INDEX).manifests, ())
        self.assertEqual(len(parse(encoded(image(layers=None)), OCI_IMAGE).blobs), 1)
        self.assertEqual(parse(encoded({"mediaType": OCI_ARTIFACT, "blobs": None})).blobs, ())

    def test_sha512_digests(self) -> None:
        digest = Digest.of(b"x", "sha512")
        manifest = parse(encoded(image(layers=[{"mediaType": LAYER_TYPE, "digest": digest, "size": 1}])))
        self.assertEqual(manifest.blobs[1].digest, digest)

    def test_artifact_type_of_an_image_is_that_of_its_configuration_unless_stated(self) -> None:
        self.assertEqual(parse(encoded(image())).artifact_type, CONFIG_TYPE)
        self.assertEqual(parse(encoded(image(artifactType="application/y"))).artifact_type, "application/y")
        self.assertEqual(parse(encoded(image(artifactType=""))).artifact_type, CONFIG_TYPE)
        self.assertEqual(parse(encoded(index(artifactType="application/z"))).artifact_type, "application/z")
        self.assertEqual(parse(encoded(index())).artifact_type, "")

    def test_urls_and_annotations(self) -> None:
        layer = descriptor(b"one", urls=["https://example.com/x"], annotations={"a": "b"})
        manifest = parse(encoded(image(layers=[layer], annotations={"c": "d"})))
        self.assertEqual(manifest.blobs[1].urls, ("https://example.com/x",))
        self.assertEqual(manifest.blobs[1].annotations, {"a": "b"})
        self.assertEqual(manifest.annotations, {"c": "d"})

    def test_fields_that_nobody_knows_are_kept_out_of_the_way(self) -> None:
        self.assertEqual(parse(encoded(image(unheard={"of": [1]}))), parse(encoded(image())))


class RefusedTest(SynchronousTestCase):
    def refused(self, document: object, *words: str, content_type: str = "") -> None:
        content = document if isinstance(document, bytes) else encoded(document)
        error = self.assertRaises(ManifestInvalid, parse, content, content_type)
        for word in words:
            self.assertIn(word, error.message)
        self.assertLess(len(error.message), 1000)

    def test_what_is_no_json_object(self) -> None:
        for content in (
            b"", b" ", b"{", b"\xff\xfe", b"{}{}", b"nul", b"[1,2", b'{"a":' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 100_000,
        ):  # fmt: skip
            self.refused(content, "not JSON")
        for content in (b"null", b"[]", b"1", b'"x"', b"true", b"NaN"):
            self.refused(content, "object")

    def test_json_that_is_not_utf_8(self) -> None:
        # RFC 8259, section 8.1: UTF-8, and no byte order mark. Clients in Go refuse the others, so they could not pull it.
        for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig"):
            self.refused(json.dumps(image()).encode(encoding), "not JSON")

    def test_nothing_that_says_what_it_is(self) -> None:
        self.refused({"schemaVersion": 2}, "neither an image manifest")
        self.refused({"schemaVersion": 2, "config": {}}, "neither an image manifest")

    def test_schema_version(self) -> None:
        versions: tuple[object, ...] = (None, 0, 3, "2", [2], {}, 2.5, 2.0, "x" * 10_000)
        for version in versions:
            self.refused(image(mediaType=OCI_IMAGE, schemaVersion=version), "schemaVersion")

    def test_a_deeply_nested_schema_version_is_told_shortly(self) -> None:
        for depth in (900, 950, 980):
            nested = b"[" * depth + b"]" * depth
            self.refused(b'{"mediaType": "%s", "schemaVersion": %s}' % (OCI_IMAGE.encode(), nested))

    def test_schema_1_says_what_to_do(self) -> None:
        self.refused({"schemaVersion": 1, "name": "x", "fsLayers": []}, "skopeo", "push it again")
        for media_type in SCHEMA_1:
            self.refused(image(), "schema 1", content_type=media_type)
            self.refused(image(mediaType=media_type), "schema 1")

    def test_media_types(self) -> None:
        self.refused(image(mediaType="application/x"), "'application/x'", OCI_IMAGE)
        self.refused(image(), "'application/x'", content_type="application/x")
        self.refused(image(mediaType=OCI_IMAGE), OCI_IMAGE, DOCKER_IMAGE, content_type=DOCKER_IMAGE)
        self.refused(image(mediaType=3), "mediaType")
        self.refused(image(mediaType="x" * 100_000))

    def test_a_media_type_that_only_the_push_knows_would_be_lost(self) -> None:
        self.assertEqual(parse(encoded(image()), OCI_IMAGE).media_type, OCI_IMAGE)
        self.assertEqual(parse(encoded(index()), OCI_INDEX).media_type, OCI_INDEX)
        for document, media_type in (
            (image(), DOCKER_IMAGE),
            (image(), OCI_INDEX),
            (image(), OCI_ARTIFACT),
            (index(), DOCKER_LIST),
            (index(), OCI_IMAGE),
            ({}, OCI_ARTIFACT),
            ({"schemaVersion": 2}, OCI_INDEX),
        ):
            self.refused(document, "mediaType", content_type=media_type)

    def test_one_content_is_one_thing(self) -> None:
        # CVE-2021-41190.
        self.refused(image(manifests=[descriptor(b"x")]), "must not be there")
        self.refused(image(mediaType=OCI_IMAGE, manifests=[descriptor(b"x")]), "manifests")
        self.refused(index(mediaType=OCI_INDEX, layers=[descriptor(b"x")]), "layers")
        self.refused(index(mediaType=OCI_INDEX, config=descriptor(b"x")), "config")

    def test_descriptors(self) -> None:
        good = descriptor(b"x")
        for wrong, *words in (
            (None, "layers[0]"),
            ([], "layers[0]"),
            ({}, "layers[0].size"),
            ({**good, "size": -1}, "layers[0].size"),
            ({**good, "size": True}, "layers[0].size"),
            ({**good, "size": "1"}, "layers[0].size"),
            ({**good, "size": 1.5}, "layers[0].size"),
            ({**good, "size": 2**63}, "layers[0].size"),
            ({**good, "digest": None}, "layers[0].digest"),
            ({**good, "digest": 7}, "layers[0].digest"),
            ({**good, "digest": "sha256:../../x"}, "layers[0].digest"),
            ({**good, "digest": "md5:" + "a" * 32}, "layers[0].digest", "md5"),
            ({**good, "digest": good["digest"] + "\n"}, "layers[0].digest"),
            ({**good, "mediaType": []}, "layers[0].mediaType"),
            ({**good, "urls": "https://x"}, "layers[0].urls"),
            ({**good, "urls": [1]}, "layers[0].urls"),
            ({**good, "annotations": []}, "layers[0].annotations"),
            ({**good, "annotations": {"a": 1}}, "layers[0].annotations"),
            ({**good, "artifactType": 1}, "layers[0].artifactType"),
        ):
            self.refused(image(mediaType=OCI_IMAGE, layers=[wrong]), *words)
        self.refused(image(mediaType=OCI_IMAGE, layers={}), "layers")
        self.refused(image(mediaType=OCI_IMAGE, config=None), "config")
        self.refused(image(subject=[]), "subject")
        self.refused(image(subject={}), "subject")
        self.refused(image(annotations=[1]), "annotations")
        self.refused(image(artifactType=1), "artifactType")

    def test_the_largest_size_that_clients_can_read(self) -> None:
        manifest = parse(encoded(image(layers=[{**descriptor(b"x"), "size": 2**63 - 1}])))
        self.assertEqual(manifest.blobs[1].size, 2**63 - 1)

    def test_a_platform_that_is_none_does_no_harm(self) -> None:
        empty = Platform("", "")
        for platform, expected in ((None, None), ("linux", None), ({}, empty), ({"os": 1, "architecture": []}, empty)):
            manifest = parse(encoded(index(manifests=[descriptor(b"x", platform=platform)])))
            self.assertEqual(manifest.manifests[0].platform, expected)


class StoredTest(SynchronousTestCase):
    """What lies in an old data directory is served even where it would not be taken today."""

    def test_what_an_older_registry_took(self) -> None:
        self.assertEqual(media_type_of(encoded(image(mediaType=DOCKER_IMAGE, layers=[{"digest": "odd"}]))), DOCKER_IMAGE)
        self.assertEqual(media_type_of(encoded(image(annotations=3))), OCI_IMAGE)
        self.assertEqual(media_type_of(encoded(image(layers=None))), OCI_IMAGE)
        self.assertEqual(media_type_of(encoded(index())), OCI_INDEX)

    def test_what_cannot_be_served(self) -> None:
        configuration = b'{"architecture": "amd64", "config": {}, "rootfs": {}}'
        for content in (b"", b"\x1f\x8b layer", b"{}", configuration, encoded({"schemaVersion": 1})):
            self.assertRaises(ManifestInvalid, media_type_of, content)


class AnyInputTest(SynchronousTestCase):
    @given(st.binary() | DOCUMENTS.map(encoded) | st.text().map(str.encode), CONTENT_TYPES)
    def test_any_bytes_are_read_or_refused(self, content: bytes, content_type: str) -> None:
        try:
            kind = parse(content, content_type).media_type
        except ManifestInvalid as error:
            self.assertLess(len(error.message), 1000)
            json.dumps(error.envelope())
        else:
            self.assertIn(kind, MEDIA_TYPES)
        try:
            self.assertIn(media_type_of(content), MEDIA_TYPES)
        except ManifestInvalid:
            return

    @given(DOCUMENTS.map(encoded), CONTENT_TYPES)
    def test_what_is_taken_is_served_again(self, content: bytes, content_type: str) -> None:
        try:
            manifest = parse(content, content_type)
        except ManifestInvalid:
            return
        # A pull has the bytes only, not the Content-Type of the push.
        self.assertEqual(media_type_of(content), manifest.media_type)
        self.assertEqual(parse(content), manifest)

    @given(
        st.lists(st.binary(max_size=8), max_size=5),
        st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
        st.sampled_from([OCI_IMAGE, DOCKER_IMAGE]),
    )
    def test_images_round_trip(self, layers: list[bytes], annotations: dict[str, str], media_type: str) -> None:
        document = image(mediaType=media_type, layers=[descriptor(layer) for layer in layers], annotations=annotations)
        manifest = parse(encoded(document), media_type)
        self.assertEqual(manifest.annotations, annotations)
        self.assertEqual([blob.to_json() for blob in manifest.blobs], [document["config"], *document["layers"]])

    def test_descriptors_say_only_what_they_have(self) -> None:
        digest = Digest.of(b"x")
        self.assertEqual(Descriptor(OCI_IMAGE, digest, 1).to_json(), {"mediaType": OCI_IMAGE, "digest": digest, "size": 1})
        self.assertEqual(
            Descriptor(OCI_IMAGE, digest, 1, artifact_type="t", annotations={"a": "b"}).to_json(),
            {"mediaType": OCI_IMAGE, "digest": digest, "size": 1, "artifactType": "t", "annotations": {"a": "b"}},
        )
