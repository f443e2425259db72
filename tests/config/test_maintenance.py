"""``storage.maintenance``: garbage collection, its window, and the purge of uploads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.config import ConfigError, GarbageCollect, Maintenance, UploadPurging, Window
from regd.config.window import WindowError, parse_window
from tests.config.support import MINIMAL, ConfigCase

START = "version: 0.1\nstorage: {inmemory: , maintenance: "
ENVIRON = "REGISTRY_STORAGE_MAINTENANCE_"
MINUTES = st.integers(0, 1439)


class WindowTests(SynchronousTestCase):
    def test_windows(self) -> None:
        for text, window in {
            "02:00-05:00": Window(120, 300),
            "2:00 - 5:30": Window(120, 330),
            "23:00-04:00": Window(1380, 240),
            "22:15-24:00": Window(1335, 0),
            "22:15-00:00": Window(1335, 0),
            "00:00-23:59": Window(0, 1439),
        }.items():
            self.assertEqual(parse_window(text), window, text)

    def test_none(self) -> None:
        self.assertEqual((parse_window(""), parse_window("none")), (None, None))

    def test_what_is_refused(self) -> None:
        for text in (
            "02:00", "02:00-", "-05:00", "02:00-25:00", "02:60-05:00", "24:00-05:00", "02:00-24:01", "2-5", "02.00-05.00", "02:00-05:00 ",
            "02:00--05:00", "02:00-05:00-06:00", "002:00-05:00", "02:0-05:00", "None", "always", "\u0662:00-05:00", "02:00-05:00\n",
        ):  # fmt: skip
            error = self.assertRaises(WindowError, parse_window, text)
            self.assertIn("02:00-05:00", str(error))
        for text in ("02:00-02:00", "00:00-24:00", "0:00-00:00"):
            self.assertIn("ends at another time", str(self.assertRaises(WindowError, parse_window, text)))

    @given(MINUTES, MINUTES)
    def test_what_is_written_is_read(self, start: int, end: int) -> None:
        if start != end:
            self.assertEqual(parse_window(str(Window(start, end))), Window(start, end))

    @given(st.text(max_size=16) | st.from_regex(r"[0-9]{1,3}:[0-9]{1,3} ?- ?[0-9]{1,3}:[0-9]{1,3}"))
    def test_any_text_is_a_window_or_refused(self, text: str) -> None:
        try:
            window = parse_window(text)
        except WindowError as error:
            self.assertTrue(str(error).isprintable())
            return
        if window is not None:
            self.assertNotEqual(window.start, window.end)
            self.assertTrue(0 <= window.start < 1440 > window.end >= 0)
            self.assertEqual(parse_window(str(window)), window)


class GarbageCollectTests(ConfigCase):
    def section(self, text: str, **environ: str) -> GarbageCollect:
        return self.load(f"{START}{{garbagecollect: {text}}}}}", **environ).config.storage.maintenance.garbagecollect

    def test_defaults(self) -> None:
        found = self.config().storage.maintenance.garbagecollect
        self.assertEqual(found, GarbageCollect(False, 86400.0, None, 3600.0, False, False, 0, 5.0))
        self.assertEqual(self.section(""), found)
        self.assertEqual(self.section("{}"), found)

    def test_enabled_follows_deletes(self) -> None:
        for delete in (True, False):
            for given_, expected in (("", delete), ("{enabled: true}", True), ("{enabled: false}", False), ("{enabled: }", delete)):
                text = f"version: 0.1\nstorage: {{inmemory: , delete: {{enabled: {delete}}}, maintenance: {{garbagecollect: {given_}}}}}"
                self.assertEqual(self.load(text).config.storage.maintenance.garbagecollect.enabled, expected, text)
        self.assertTrue(self.config(REGISTRY_STORAGE_DELETE_ENABLED="true").storage.maintenance.garbagecollect.enabled)

    def test_values(self) -> None:
        text = (
            "{enabled: yes, interval: 36h, window: 23:00-04:00, grace: 90m, untagged: true, dryrun: on, maxrate: 500, wait: 1.5s}"
        )
        expected = GarbageCollect(True, 129600.0, Window(1380, 240), 5400.0, True, True, 500, 1.5)
        self.assertEqual(self.section(text), expected)
        prefix = ENVIRON + "GARBAGECOLLECT_"
        environ = {
            "ENABLED": "true", "INTERVAL": "36h", "WINDOW": "23:00-04:00", "GRACE": "90m", "UNTAGGED": "true", "DRYRUN": "true",
            "MAXRATE": "500", "WAIT": "1.5s",
        }  # fmt: skip
        given_ = self.config(**{prefix + name: value for name, value in environ.items()})
        self.assertEqual(given_.storage.maintenance.garbagecollect, expected)
        self.assertEqual(self.section("{window: none}").window, None)
        self.assertEqual(self.section("{window: '02:00-05:00'}", **{prefix + "WINDOW": "none"}).window, None)

    def test_what_is_refused(self) -> None:
        path = "storage.maintenance.garbagecollect."
        for text, problem in {
            "interval: 0s": 'interval (line 2): found "0s", allowed: a duration with units, such as 90s, 10ms or 1h30m, of at least 1s',
            "grace: -1h": 'grace (line 2): found "-1h", allowed: a duration',
            "wait: soon": 'wait (line 2): found "soon", allowed: a duration',
            "maxrate: -1": 'maxrate (line 2): found "-1", allowed: a whole number of at least 0',
            "window: at night": 'window (line 2): found "at night", allowed: none, or two times of the day',
            "window: 120": 'window (line 2): found "120", allowed: none, or two times of the day',
            "window: '02:00-02:00'": 'window (line 2): found "02:00-02:00", allowed: a window that ends at another time',
            "enabled: 'true'": "enabled (line 2): found ",
        }.items():
            line = self.problem(f"{START}{{garbagecollect: {{{text}}}}}}}")
            self.assertTrue(line.startswith(path + problem), line)

    def test_what_is_worth_a_warning(self) -> None:
        for text, count in (("grace: 59s, interval: 59s", 2), ("grace: 1m, interval: 1m", 0), ("grace: 0", 1), ("wait: 0s", 0)):
            warnings = self.load(f"{START}{{garbagecollect: {{{text}}}}}}}").warnings
            self.assertEqual(len(warnings), count, warnings)

    def test_a_name_that_is_no_key(self) -> None:
        (warning,) = self.load(f"{START}{{garbagecollect: {{intervall: 1h}}}}}}").warnings
        self.assertIn("the nearest is storage.maintenance.garbagecollect.interval", warning)


class UploadPurgingTests(ConfigCase):
    """``registry/handlers/app.go`` of registry:2 has the rules: ``startUploadPurger``."""

    def section(self, text: str, **environ: str) -> UploadPurging:
        return self.load(f"{START}{{uploadpurging: {text}}}}}", **environ).config.storage.maintenance.uploadpurging

    def test_defaults(self) -> None:
        default = UploadPurging(enabled=True, age=604800.0, interval=86400.0, dryrun=False)
        self.assertEqual(self.config().storage.maintenance.uploadpurging, default)
        self.assertEqual(self.section(""), default)
        self.assertEqual(self.load(f"{START}{{readonly: {{enabled: false}}}}}}").config.storage.maintenance.uploadpurging, default)

    def test_values(self) -> None:
        expected = UploadPurging(enabled=True, age=7200.0, interval=3600.0, dryrun=True)
        self.assertEqual(self.section("{age: 2h, interval: 60m, dryrun: true}"), expected)
        self.assertEqual(self.section("{enabled: , age: '2h', interval: \"60m\", dryrun: yes}"), expected)
        environ = {f"{ENVIRON}UPLOADPURGING_{name}": value for name, value in {"AGE": "2h", "INTERVAL": "60m", "DRYRUN": "true"}.items()}
        self.assertEqual(self.config(**environ).storage.maintenance.uploadpurging, expected)
        self.assertEqual(
            self.config(**{ENVIRON + "UPLOADPURGING": "{enabled: true, age: 2h, interval: 60m, dryrun: true}"}).storage.maintenance,
            Maintenance(self.config().storage.maintenance.readonly, self.config().storage.maintenance.garbagecollect, expected),
        )

    def test_switched_off_nothing_else_is_looked_at(self) -> None:
        for text in ("{enabled: false}", "{enabled: no, age: 5}", "{enabled: off, age: 168h, interval: 24h, dryrun: true}"):
            self.assertEqual(self.section(text), UploadPurging(enabled=False), text)
        self.assertFalse(self.config(**{ENVIRON + "UPLOADPURGING_ENABLED": "false"}).storage.maintenance.uploadpurging.enabled)

    def test_mandatory_keys(self) -> None:
        path = "storage.maintenance.uploadpurging."
        for text, missing in {
            "{}": ["age", "interval", "dryrun"],
            "{enabled: true}": ["age", "interval", "dryrun"],
            "{age: 2h}": ["interval", "dryrun"],
            "{age: 2h, interval: 1h}": ["dryrun"],
            "{interval: 1h, dryrun: false}": ["age"],
            "{age: , interval: 1h, dryrun: false}": ["age"],
        }.items():
            error = self.assertRaises(ConfigError, self.section, text)
            named = [problem.partition(" (line 2): found nothing, allowed: ")[0] for problem in error.problems]
            self.assertEqual(named, [path + name for name in missing], text)

    def test_what_is_refused(self) -> None:
        path = "storage.maintenance.uploadpurging."
        for text, problem in {
            "age: 168, interval: 1h, dryrun: false": 'age (line 2): found "168", allowed: a duration with units',
            "age: 0, interval: 1h, dryrun: false": 'age (line 2): found "0", allowed: a duration with units',
            "age: -1h, interval: 1h, dryrun: false": 'age (line 2): found "-1h", allowed: a duration with units',
            "age: week, interval: 1h, dryrun: false": 'age (line 2): found "week", allowed: a duration with units',
            "age: 1h, interval: 0s, dryrun: false": 'interval (line 2): found "0s", allowed: a duration with units',
            "age: 1h, interval: 1h, dryrun: 'no'": 'dryrun (line 2): found "no", allowed: true or false, without quotes',
            "enabled: 'false', age: 1h, interval: 1h, dryrun: no": 'enabled (line 2): found "false", allowed: true or false, without',
        }.items():
            line = self.problem(f"{START}{{uploadpurging: {{{text}}}}}}}")
            self.assertTrue(line.startswith(path + problem), line)
        for text in ("true", "[]", "168h"):
            line = self.problem(f"{START}{{uploadpurging: {text}}}}}")
            self.assertTrue(line.startswith("storage.maintenance.uploadpurging (line 2): found "), line)

    def test_a_short_interval_is_worth_a_warning(self) -> None:
        (warning,) = self.load(f"{START}{{uploadpurging: {{age: 1s, interval: 30s, dryrun: false}}}}}}").warnings
        self.assertTrue(warning.startswith("storage.maintenance.uploadpurging.interval (line 2): "), warning)

    def test_the_shortest_configuration_has_no_warning(self) -> None:
        self.assertEqual(self.load(MINIMAL).warnings, ())
