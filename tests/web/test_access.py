"""Who may do what, over HTTP: each endpoint by each kind of user, compared with a plain reading of the rules; and what nobody may learn."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import bcrypt
from twisted.internet.defer import Deferred

from regd.config.watched import TOKEN_SECRET
from regd.service import admission, serving
from regd.storage.threads import Inline
from regd.web import door
from regd.web.rates import Rate
from tests.web.support import OCTETS, ApiCase, digest_of, path_of
from tests.web.wire import Answer

PATH = "/etc/regd/htpasswd"
SECRET = b"0" * 32
USERS = ("nobody", "puller", "pusher", "deleter", "admin")
REALM = 'Bearer realm="http://registry.example:5000/auth/token",service="regd"'

CONFIG = f"""
version: 0.1
storage: {{inmemory: {{}}, delete: {{enabled: true}}}}
auth: {{htpasswd: {{realm: here, path: {PATH}}}}}
"""
RULES = """
access:
- {who: anonymous, repositories: "public/**", actions: [pull]}
- {who: [puller, "@ci"], repositories: "team/**", actions: [pull]}
- {who: "@ci", repositories: "team/**", actions: [push]}
- {who: deleter, repositories: "team/**", actions: [pull, delete]}
- {who: admin, repositories: "**", actions: [pull, push, delete, catalog]}
groups: {ci: [pusher]}
"""


def passwords(*names: str) -> bytes:
    return b"".join(b"%s:%s\n" % (name.encode(), bcrypt.hashpw(name.encode() * 2, bcrypt.gensalt(4))) for name in names)


def login(name: str, password: str | None = None) -> list[tuple[str, str]]:
    """
    :return: The field of a user whose password is the name, twice.
    """
    if not name:
        return []
    return [("Authorization", "Basic " + base64.b64encode(f"{name}:{password or name * 2}".encode()).decode())]


class Now(Inline):
    """Threads that are none."""

    def stop(self) -> None:
        """There is nothing to end."""


def allowed(user: str, repository: str, action: str) -> bool:
    """What the rules say, read by a person."""
    if user == "admin":
        return True
    if action == "pull" and repository.startswith("public/"):
        return True
    if not repository.startswith("team/"):
        return False
    return action in {"puller": ["pull"], "pusher": ["pull", "push"], "deleter": ["pull", "delete"]}.get(user, [])


class AccessCase(ApiCase):
    config = CONFIG + RULES

    def setUp(self) -> None:
        self.patch(admission, "PoolThreads", lambda reactor, size: Now())
        # These try wrong ones again and again.
        self.patch(door, "_FAILURES", Rate(0.0, 1))
        super().setUp()
        self.start()
        plain = self.ask

        def as_admin(method: str, target: str | bytes, headers: object = (), body: bytes | None = None, **more: object) -> Answer:
            return plain(method, target, [*headers, *self.administrator(str(target))], body, **more)  # type: ignore[misc, arg-type]  # as ask has them

        self.ask = as_admin  # type: ignore[method-assign]  # what the helpers of ApiCase push, an administrator pushes
        for name in ("public/a", "team/a", "hidden/a"):
            self.digest, self.manifest = self.push_image(name, "v1")
        self.ask = plain  # type: ignore[method-assign]  # from now on as it was

    def start(self) -> None:
        """Have it serve."""
        self.service.serving.start({PATH: passwords(*USERS), TOKEN_SECRET: SECRET})
        self.addCleanup(lambda: Deferred.fromCoroutine(self.service.serving.close()))

    def administrator(self, target: str) -> list[tuple[str, str]]:
        """
        :return: The field of who may do everything.
        """
        return login("admin")

    def by(self, user: str, method: str, target: str, body: bytes | None = None) -> Answer:
        fields = login(user) + ([OCTETS] if body is not None else [])
        return self.ask(method, target, fields, body)

    def endpoints(self, name: str) -> list[tuple[str, str, bytes | None, str, set[int]]]:
        """
        :return: Method, target, body, action, and the statuses of who may, where the repository is there and where it is not.
        """
        layer, absent = digest_of(b"layer"), digest_of(b"absent")
        upload = "00000000-0000-4000-8000-000000000000"
        put = json.dumps({"schemaVersion": 2}).encode()
        return [
            ("GET", f"/v2/{name}/manifests/v1", None, "pull", {200, 404}),
            ("HEAD", f"/v2/{name}/manifests/v1", None, "pull", {200, 404}),
            ("GET", f"/v2/{name}/manifests/{self.digest}", None, "pull", {200, 404}),
            ("GET", f"/v2/{name}/blobs/{layer}", None, "pull", {200, 404}),
            ("HEAD", f"/v2/{name}/blobs/{layer}", None, "pull", {200, 404}),
            ("GET", f"/v2/{name}/blobs/{absent}", None, "pull", {404}),
            ("GET", f"/v2/{name}/tags/list", None, "pull", {200, 404}),
            ("GET", f"/v2/{name}/referrers/{self.digest}", None, "pull", {200}),
            ("POST", f"/v2/{name}/blobs/uploads/", b"", "push", {202}),
            ("GET", f"/v2/{name}/blobs/uploads/{upload}", None, "push", {404}),
            ("PATCH", f"/v2/{name}/blobs/uploads/{upload}", b"x", "push", {404}),
            ("PUT", f"/v2/{name}/blobs/uploads/{upload}?digest={layer}", b"x", "push", {404}),
            ("DELETE", f"/v2/{name}/blobs/uploads/{upload}", None, "push", {404}),
            ("PUT", f"/v2/{name}/manifests/new", put, "push", {400}),
            ("DELETE", f"/v2/{name}/manifests/absent", None, "delete", {404}),
            ("DELETE", f"/v2/{name}/blobs/{absent}", None, "delete", {404}),
        ]


class CertificateTests(AccessCase):
    """Who the transport says a client is."""

    config = CONFIG + "http: {tls: {certificate: /c, key: /k, clientcas: [/a]}}" + RULES

    def setUp(self) -> None:
        # Certificates are read where connections are made, which here they are not.
        self.patch(serving, "TLSAcceptor", lambda tls, files, tally: None)
        super().setUp()

    def ask_as(self, certified: str, user: str, method: str, target: str) -> Answer:
        client = self.client()
        client.wire.certified = certified
        return client.ask(method, target, login(user))

    def test_each(self) -> None:
        for certified in ("", "puller", "pusher", "admin", "stranger"):
            for name in ("public/a", "team/a", "hidden/a"):
                expected = 200 if allowed(certified, name, "pull") else 404 if certified else 401
                self.assertEqual(self.ask_as(certified, "", "GET", f"/v2/{name}/manifests/v1").status, expected, (certified, name))

    def test_what_is_said_comes_first(self) -> None:
        self.assertEqual(self.ask_as("admin", "puller", "GET", "/v2/hidden/a/manifests/v1").status, 404)
        self.assertEqual(self.ask_as("puller", "admin", "GET", "/v2/hidden/a/manifests/v1").status, 200)
        client = self.client()
        client.wire.certified = "admin"
        self.assertEqual(client.ask("GET", "/v2/hidden/a/manifests/v1", login("admin", "wrong")).status, 401)

    def test_the_base(self) -> None:
        """Docker asks there first, and asks for no password when it is let in."""
        self.assertEqual(self.ask_as("puller", "", "GET", "/v2/").status, 200)
        self.assertEqual(self.ask_as("", "", "GET", "/v2/").status, 401)


class CertificateWithoutRulesTests(CertificateTests):
    """As in registry:2, where the password is asked for all the same."""

    config = CONFIG + "http: {tls: {certificate: /c, key: /k, clientcas: [/a]}}"

    def test_each(self) -> None:
        self.assertEqual(self.ask_as("admin", "", "GET", "/v2/team/a/manifests/v1").status, 401)
        self.assertEqual(self.ask_as("", "puller", "GET", "/v2/team/a/manifests/v1").status, 200)

    def test_what_is_said_comes_first(self) -> None:
        self.assertEqual(self.ask_as("admin", "puller", "GET", "/v2/team/a/manifests/v1").status, 200)

    def test_the_base(self) -> None:
        self.assertEqual(self.ask_as("admin", "", "GET", "/v2/").status, 401)


class EndpointTests(AccessCase):
    def test_each_by_each(self) -> None:
        for name in ("public/a", "team/a", "hidden/a", "public/no", "team/no", "hidden/no"):
            for method, target, body, action, statuses in self.endpoints(name):
                for user in ("", *USERS):
                    answer = self.by(user, method, target, body)
                    case = (user or "anonymous", method, target, answer)
                    challenge = answer.get("WWW-Authenticate")
                    if allowed(user, name, action):
                        self.assertIn(answer.status, statuses, case)
                        self.assertIsNone(challenge, case)
                    elif not user:
                        scope = f'scope="repository:{name}:{"pull,push" if action == "push" else action}"'
                        self.assertEqual((answer.status, challenge), (401, f"{REALM},{scope}"), case)
                    elif action == "pull":
                        # As of a repository that is not there: for lists of referrers that is an empty one.
                        self.assertEqual(answer.status, 200 if "referrers" in target else 404, case)
                    else:
                        self.assertEqual((answer.status, challenge), (403, None), case)
                        self.assertEqual(json.loads(answer.body)["errors"][0]["code"], "DENIED")
                wrong = self.ask(method, target, [*login("admin", "wrong"), *([OCTETS] if body is not None else [])], body)
                scope = f'scope="repository:{name}:{"pull,push" if action == "push" else action}"'
                self.assertEqual((wrong.status, wrong.get("WWW-Authenticate")), (401, f"{REALM},{scope}"), (method, target, wrong))

    def test_what_is_hidden_is_as_what_is_not_there(self) -> None:
        def seen(user: str, name: str) -> list[tuple[int, bytes, tuple[tuple[str, str], ...]]]:
            found = []
            for method, target, body, _, _ in self.endpoints(name):
                answer = self.by(user, method, target, body)
                varying = {"X-Request-Id", "Date"}
                fields = tuple((field, value.replace(name, "?")) for field, value in answer.headers if field not in varying)
                found.append((answer.status, answer.body.replace(name.encode(), b"?"), fields))
            return found

        for user in ("", "nobody", "puller", "pusher", "deleter"):
            # The names are of the same length.
            self.assertEqual(seen(user, "hidden/a"), seen(user, "hidden/b"), user)

    def test_the_base(self) -> None:
        for user, status in (("", 401), *((user, 200) for user in USERS)):
            answer = self.by(user, "GET", "/v2/")
            self.assertEqual((answer.status, answer.get("WWW-Authenticate")), (status, REALM if status == 401 else None), user)
        self.assertEqual(self.by("", "GET", "/").status, 200)

    def test_credentials_that_are_none(self) -> None:
        for value in ("Basic", "Basic x", "Bearer abc", "Basic " + base64.b64encode(b"admin").decode(), "", "basic  ", "Digest a=b"):
            for target in ("/v2/", "/v2/public/a/manifests/v1", "/v2/_catalog"):
                answer = self.ask("GET", target, [("Authorization", value)])
                scope = {"/v2/": "", "/v2/_catalog": ',scope="registry:catalog:*"'}.get(target, ',scope="repository:public/a:pull"')
                error = ',error="invalid_token"' if value.startswith("Bearer") else ""
                self.assertEqual((answer.status, answer.get("WWW-Authenticate")), (401, REALM + scope + error), value)
        twice = self.ask("GET", "/v2/", login("admin") * 2)
        self.assertEqual(twice.status, 401)
        self.assertEqual(self.ask("GET", "/v2/", [("authorization", login("admin")[0][1].replace("Basic", "bAsIc"))]).status, 200)

    def test_catalog(self) -> None:
        self.refused(self.by("", "GET", "/v2/_catalog"), 401, "UNAUTHORIZED")
        self.refused(self.by("pusher", "GET", "/v2/_catalog"), 403, "DENIED")
        self.assertEqual(json.loads(self.by("admin", "GET", "/v2/_catalog").body)["repositories"], ["hidden/a", "public/a", "team/a"])

    def test_one_connection(self) -> None:
        """Who somebody is, is remembered for the same words and no others."""
        client = self.client()
        for user, status in (("admin", 200), ("admin", 200), ("nobody", 404), ("", 401), ("admin", 200)):
            self.assertEqual(client.ask("GET", "/v2/hidden/a/manifests/v1", login(user)).status, status, user)
        self.assertEqual(client.ask("GET", "/v2/hidden/a/manifests/v1", login("admin", "wrong")).status, 401)

    def test_the_access_log_says_who(self) -> None:
        self.by("puller", "GET", "/v2/team/a/manifests/v1")
        self.by("", "GET", "/v2/public/a/manifests/v1")
        lines = self.access.getvalue().splitlines()
        self.assertIn(" - puller [", lines[-2])
        self.assertIn(" - - [", lines[-1])


class CatalogTests(AccessCase):
    config = CONFIG + RULES.replace("actions: [pull]}\n- {who: \"@ci\"", "actions: [pull, catalog]}\n- {who: \"@ci\"")

    def test_it_shows_what_one_may_pull(self) -> None:
        for number in range(6):
            self.assertIn(self.by("admin", "POST", f"/v2/hidden/{number}/blobs/uploads/", b"").status, {202})
        self.assertEqual(json.loads(self.by("puller", "GET", "/v2/_catalog").body)["repositories"], ["public/a", "team/a"])
        first = self.by("puller", "GET", "/v2/_catalog?n=1")
        self.assertEqual(json.loads(first.body)["repositories"], ["public/a"])
        self.assertIn("last=public%2Fa", first["Link"].replace("last=public/a", "last=public%2Fa"))


class MountTests(AccessCase):
    def mount(self, user: str, query: str) -> Answer:
        return self.by(user, "POST", f"/v2/team/b/blobs/uploads/?mount={digest_of(b'layer')}{query}", b"")

    def test_only_from_where_one_may_pull(self) -> None:
        self.assertEqual(self.mount("pusher", "&from=team/a").status, 201)
        self.assertEqual(self.mount("pusher", "&from=public/a").status, 201)
        for query in ("&from=hidden/a", "&from=hidden/no", "&from=team/no", "", "&from=%00"):
            self.assertEqual(self.mount("pusher", query).status, 202, query)
        self.assertEqual(self.mount("admin", "&from=hidden/a").status, 201)


class ReloadTests(AccessCase):
    def again(self, data: bytes) -> None:
        self.service.serving.configure(self.service.serving.config, {PATH: data})

    def test_who_is_taken_out_is_out(self) -> None:
        client = self.client()
        self.assertEqual(client.ask("GET", "/v2/", login("admin")).status, 200)
        self.again(passwords("puller"))
        self.assertEqual(client.ask("GET", "/v2/", login("admin")).status, 401)
        self.assertEqual(client.ask("GET", "/v2/", login("puller")).status, 200)

    def test_an_upload_goes_on(self) -> None:
        begun = self.by("pusher", "POST", "/v2/team/a/blobs/uploads/", b"")
        self.again(passwords(*USERS))
        target = path_of(begun["Location"])
        self.assertEqual(self.by("pusher", "PATCH", target, b"abc").status, 202)


class TokenTests(AccessCase):
    def token(self, user: str, *scopes: str) -> list[tuple[str, str]]:
        """
        :return: The field of somebody who has been given a token.
        """
        query = "&".join(f"scope={scope}" for scope in scopes)
        answer = self.ask("GET", f"/auth/token?service=regd&{query}", login(user))
        self.assertEqual((answer.status, answer.get("Cache-Control")), (200, "no-store"), answer)
        given = json.loads(answer.body)
        self.assertEqual((given["token"], given["expires_in"]), (given["access_token"], 300))
        return [("Authorization", f"Bearer {given['token']}")]

    def test_each_by_each(self) -> None:
        """With a token for what was wanted, everybody may do what they may with a password, and is challenged for the rest."""
        for name in ("public/a", "team/a", "hidden/a"):
            for user in ("", *USERS):
                token = self.token(user, f"repository:{name}:pull,push,delete")
                for action, method, target in (
                    ("pull", "GET", f"/v2/{name}/manifests/v1"),
                    ("push", "POST", f"/v2/{name}/blobs/uploads/"),
                    ("delete", "DELETE", f"/v2/{name}/manifests/absent"),
                ):
                    answer = self.ask(method, target, token, b"" if action == "push" else None)
                    case = (user, target, answer)
                    if allowed(user, name, action):
                        self.assertEqual(answer.status, {"pull": 200, "push": 202, "delete": 404}[action], case)
                    else:
                        scope = f'scope="repository:{name}:{"pull,push" if action == "push" else action}"'
                        wanted = f'{REALM},{scope},error="insufficient_scope"'
                        self.assertEqual((answer.status, answer.get("WWW-Authenticate")), (401, wanted), case)

    def test_one_for_another_repository(self) -> None:
        token = self.token("admin", "repository:team/a:pull")
        self.assertEqual(self.ask("GET", "/v2/team/a/manifests/v1", token).status, 200)
        for target in ("/v2/hidden/a/manifests/v1", "/v2/public/a/manifests/v1", "/v2/_catalog"):
            answer = self.ask("GET", target, token)
            self.assertEqual(answer.status, 401, target)
            self.assertIn('error="insufficient_scope"', answer["WWW-Authenticate"])
        self.assertEqual(self.ask("GET", "/v2/_catalog", self.token("admin", "registry:catalog:*")).status, 200)
        self.assertEqual(self.ask("GET", "/v2/", token).status, 200)

    def test_for_another_service(self) -> None:
        given = json.loads(self.ask("GET", "/auth/token?service=other", login("admin")).body)["token"]
        self.assertEqual(self.ask("GET", "/v2/", [("Authorization", f"Bearer {given}")]).status, 401)

    def test_a_token_is_for_a_password(self) -> None:
        token = self.token("puller", "repository:team/a:pull")
        for fields in (token, login("admin", "wrong"), [("Authorization", "Basic x")]):
            answer = self.ask("GET", "/auth/token?scope=repository:team/a:pull", fields)
            self.assertEqual((answer.status, answer.get("WWW-Authenticate")), (401, 'Basic realm="here"'))
        # containerd asks with a form first, and then as all others do.
        self.assertEqual(self.ask("POST", "/auth/token", [], b"grant_type=password").status, 405)
        self.assertEqual(self.ask("GET", "/auth/jwks").status, 404)

    def test_rules_count_when_it_is_used(self) -> None:
        token = self.token("puller", "repository:team/a:pull")
        config = self.service.serving.config
        self.service.serving.configure(replace(config, access=(config.access or ())[:1]), {PATH: passwords(*USERS), TOKEN_SECRET: SECRET})
        self.assertEqual(self.ask("GET", "/v2/team/a/manifests/v1", token).status, 404)


class WithoutRulesTests(AccessCase):
    config = CONFIG

    def test_there_is_no_token_service(self) -> None:
        self.refused(self.ask("GET", "/auth/token"), 404, "NOT_FOUND")
        self.assertEqual(self.by("", "GET", "/v2/")["WWW-Authenticate"], 'Basic realm="here"')

    def test_whoever_has_a_name_may_do_everything(self) -> None:
        self.refused(self.by("", "GET", "/v2/public/a/manifests/v1"), 401, "UNAUTHORIZED")
        self.refused(self.by("", "GET", "/v2/_catalog"), 401, "UNAUTHORIZED")
        for user in USERS:
            self.assertEqual(self.by(user, "GET", "/v2/hidden/a/manifests/v1").status, 200)
            self.assertEqual(self.by(user, "GET", "/v2/_catalog").status, 200)
            self.assertEqual(self.by(user, "POST", "/v2/hidden/a/blobs/uploads/", b"").status, 202)


class WithoutPasswordsTests(ApiCase):
    """Rules alone: nobody has a name, and nobody is asked for one."""

    config = (
        "version: 0.1\nstorage: {inmemory: {}}\n"
        "access: [{who: anonymous, repositories: 'a/**', actions: [pull, push]}, {who: bob, repositories: '**', actions: [delete]}]\n"
    )

    def setUp(self) -> None:
        super().setUp()
        self.service.serving.start()

    def test_what_is_allowed_and_what_is_not(self) -> None:
        self.push_image("a/b", "v1")
        table: tuple[tuple[str, str, int], ...] = (
            ("GET", "/v2/", 200),
            ("GET", "/v2/a/b/manifests/v1", 200),
            ("DELETE", "/v2/a/b/manifests/v1", 403),
            ("GET", "/v2/b/manifests/v1", 404),
            ("POST", "/v2/b/blobs/uploads/", 403),
            ("GET", "/v2/_catalog", 403),
        )
        for method, target, status in table:
            answer = self.ask(method, target, login("bob"), b"" if method == "POST" else None)
            self.assertEqual((answer.status, answer.get("WWW-Authenticate")), (status, None), (method, target))


