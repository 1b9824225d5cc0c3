"""The guards of the server, and the test that is there for each: `guards.py` takes them out one by one.

`tests/server/test_guards.py` sees to it that every condition of the server which refuses something is in this list.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """`file`: below src/paligemma. `text`: the guard, which stands there once. `test`: what notices, below tests. `instead`: of `text`."""

    file: str
    text: str
    test: str
    instead: str = "if False:"

    def taken_out(self, source: str) -> str:
        """The file without it."""
        if source.count(self.text) != 1:
            raise ValueError(f"{self.file}: expected once, found {source.count(self.text)} times: {self.text}")
        return source.replace(self.text, self.instead)


def _here(file: str, tests: str, guards: dict[str, tuple[str, ...]]) -> dict[str, Guard]:
    """Those of one file, named -> (text, test[, instead]); the tests are functions of one file unless they name another."""
    return {
        name: Guard(f"{file}.py", text, test if "::" in test else f"{tests}.py::{test}", *instead)
        for name, (text, test, *instead) in guards.items()
    }


GUARDS: dict[str, Guard] = {
    **_here(
        "server/gate",
        "server/test_gate",
        {
            "size of headers": (
                "if address > self.limits.url_bytes or headers > self.limits.header_bytes:",
                "test_long_headers_and_addresses",
            ),
            "Host header": (
                'if name not in self._hosts and not (server and _is_address(name) and name.strip("[]") == server[0]):',
                "test_other_names_are_refused",
            ),
            "Host header of a preflight": (
                '        self.gate.check_host(self.headers.get(b"host", b""), self.scope.get("server"))\n',
                "test_an_origin_that_is_allowed",
                "",
            ),
            "Origin header": ('if origin.partition(b"://")[2].lower() != host.lower():', "test_pages_of_other_sites"),
            "origins that are allowed": (" or not self.gate.lets_in(origin):", "test_pages_of_other_sites", ":"),
            "key": ("if not sum(hmac.compare_digest(digest, key) for key in self._keys):", "test_no_key_no_entry"),
            "key to change what is open": ('if scope["method"] not in ("GET", "HEAD") or not (', "test_what_is_open", "if not ("),
            "keys in logs": ('f"key-{_digest(self.key).hex()[:16]}"', "test_right_keys", 'f"key-{self.key.decode()}"'),
            "packed bodies": ('if headers.get(b"content-encoding", b"identity").lower() != b"identity":', "test_bodies_of_other_kinds"),
            "kind of body": ("if kind not in _BODY_TYPES:", "test_bodies_of_other_kinds"),
            "announced size": (
                "if not length.isdigit() or int(length[:20]) > self.limits.body_bytes:",
                "test_a_body_that_is_announced_too_large_is_not_read",
            ),
            "plain paths": ("if not _is_plain(path):", "test_ways_around_a_path"),
            "size as it comes": ("if self.received > limits.body_bytes:", "test_an_endless_body_ends"),
            "bodies of all": ("if self.gate.held > limits.bodies_bytes:", "test_bodies_of_all_requests_together"),
            "bodies that are over": ("self.gate.held -= self.received", "test_bodies_of_all_requests_together", "pass"),
            "time for a body": (
                "min(limits.body_seconds, _GRACE + self.received / limits.body_rate)",
                "test_a_slow_body",
                "(_GRACE + self.received / limits.body_rate)",
            ),
            "pace of a body": (
                "min(limits.body_seconds, _GRACE + self.received / limits.body_rate)",
                "test_a_slow_body",
                "limits.body_seconds",
            ),
            "refusals are ours": ("self.refusal = refusal\n", "test_an_endless_body_ends", "pass\n"),
            "one shape of errors": (
                'elif message["status"] >= 400 and not shape.startswith(b"application/json"):',
                "test_errors_have_one_shape",
                "elif False:",
            ),
            "headers against other sites": ("dressed = {**_SECURITY, ", "test_headers_against_other_sites", "dressed = {"),
            "end of a connection with a body unread": (
                'dressed[b"connection"] = b"close"',
                "test_a_body_that_is_announced_too_large_is_not_read",
                "pass",
            ),
            "rest of a refused body": (
                '            await self._drop_rest()\n            body = b""',
                "test_an_answer_arrives_though_the_body_is_still_being_sent",
                '            body = b""',
            ),
            "a place before the body": ("if gate.admit:", "test_without_a_place_nothing_of_the_body_is_looked_at"),
            "a place after the body": ("if not self.unread and self.gate.admit:", "test_a_place_is_kept_once_the_body_has_been_read"),
            "ids of requests": ("if _ID.fullmatch(given) else", "test_an_answer_has_the_id_of_the_request", "if given else"),
            "methods in counts": (' if scope["method"] in _METHODS else "other"', "test_each_request_is_observed_once", ""),
            "controls in the log": (
                'printable(self.scope["path"])[:200]',
                "test_the_log_has_one_line_without_control_characters",
                'self.scope["path"][:200]',
            ),
        },
    ),
    **_here(
        "server/protocol",
        "server/test_protocol",
        {
            "folded headers": ("if self.their_state is h11.IDLE and _folded(self.trailing_data[0]):", "test_a_body_of_no_certain_length"),
            "versions of HTTP": ('if request.http_version not in (b"1.0", b"1.1"):', "test_what_is_no_http"),
            "bodies of two lengths": (
                'if b"transfer-encoding" in names and (b"content-length" in names or request.http_version == b"1.0"):',
                "test_a_body_of_no_certain_length",
            ),
            "headers without an end": (
                "_Strict(h11.SERVER, self.limits.header_bytes)",
                "test_headers_without_an_end",
                "_Strict(h11.SERVER, 1 << 30)",
            ),
            "connections": ("if len(self.connections) < self.limits.connections:", "test_connections_beyond_the_limit", "if True:"),
            "connections beyond those": (
                "if len(self.beyond) >= self.limits.connections:",
                "test_those_turned_away_are_not_told_so_without_number",
            ),
            "bytes after a mistake": (
                "        if data and not self._gone:",
                "test_what_follows_a_mistake_is_not_kept",
                "        if data:",
            ),
            "refusals within an answer": (
                "if not self._between or self.conn",
                "test_a_refusal_is_no_part_of_another_answer",
                "if self.conn",
            ),
            "refusals within a header": ("self.conn.trailing_data[0] or self.flow", "test_a_request_within_a_header_is_none", "self.flow"),
            "refusals that nobody reads": (
                "self.flow.write_paused or (request",
                "test_who_does_not_read_refusals_is_told_no_more",
                "(request",
            ),
            "time for the rest of what is refused": (
                " or bool(self._owed) or bool(self.conn.trailing_data[0])\n        return self._between",
                "test_the_rest_of_what_is_refused_comes_soon_or_not_at_all",
                " or bool(self.conn.trailing_data[0])\n        return self._between",
            ),
            "time for headers": (
                "self._header_timer = self.loop.call_later(self.limits.header_seconds, self._headers_late)",
                "test_slow_headers",
                "pass",
            ),
            "watch on readers": (
                "self._write_timer = self.loop.call_later(self.limits.blocked_write_seconds, self._look_at_writing, left)",
                "test_a_client_that_does_not_read",
                "pass",
            ),
            "pace of readers": (
                "if before - self.transport.get_write_buffer_size() < self.limits.blocked_write_seconds * self.limits.body_rate:",
                "test_a_client_that_does_not_read",
            ),
        },
    ),
    **_here(
        "server/turnstile",
        "server/test_turnstile",
        {
            "headers named twice": ("len(known) < len(headers) or ", "test_not_plain", ""),
            "more than a body": ("not _NOT_PLAIN.isdisjoint(known) or ", "test_not_plain", ""),
            "connections that end": (' or known.get(b"connection", b"keep-alive").lower() != b"keep-alive"', "test_not_plain", ""),
            "requests to nobody": ('b"host" not in known or ', "test_not_plain", ""),
            "lengths that are none": ("not length.isdigit() or ", "test_not_plain", ""),
            "lengths of many digits": ("len(length) > 9 or ", "test_not_plain", ""),
            "bodies that are long": ("not 0 < int(length) <= LONGEST", "test_not_plain", "False"),
        },
    ),
    **_here(
        "server/settings",
        "server/test_settings",
        {
            "limits above 0": ("if not getattr(self, limit.name) > 0:", "test_limits_are_positive"),
            "rows and memory": ("if self.rows < 1 or not (self.memory is None or self.memory > 0):", "test_what_cannot_be_meant"),
            "ports": ("if not 0 <= self.port < 65536:", "test_what_cannot_be_meant"),
            "keys that are none": (
                "if any(not key.strip() or key != key.strip() or not key.isprintable() for key in self.api_keys):",
                "test_what_cannot_be_meant",
            ),
            "key on other addresses": ("if not is_loopback(self.host) and not self.api_keys and not self.no_auth:", "test_others_need_one"),
            "names of hosts": ("if not pattern.fullmatch(value):", "test_what_cannot_be_meant"),
            "folder of pictures": ("if self.media_root is not None and not self.media_root.is_dir():", "test_what_cannot_be_meant"),
            "keys are not shown": ("field(default=(), repr=False)", "test_keys_are_not_shown", "()"),
        },
    ),
    **_here(
        "server/refusals",
        "server/test_refusals",
        {
            "paths in messages": (
                '_PRIVATE.sub("…", printable(message[: 2 * MAX_MESSAGE]))',
                "test_what_tells_of_the_machine_is_cut_out",
                "printable(message[: 2 * MAX_MESSAGE])",
            ),
            "controls in messages": (
                "printable(message[: 2 * MAX_MESSAGE])",
                "test_messages_are_short_and_printable",
                "message[: 2 * MAX_MESSAGE]",
            ),
            "length of messages": ("))[:MAX_MESSAGE]", "test_messages_are_short_and_printable", "))"),
            "words of unknown errors": (
                'f"an error of the server, in its log as request {REQUEST_ID.get()}"',
                "test_an_unknown_error_is_only_named_by_its_request",
                "str(error)",
            ),
            "advice for the operator": (
                " and not _LOCAL_HINT.search(error.hint)",
                "test_advice_is_passed_on_where_it_is_for_the_client",
                "",
            ),
            "controls in tracebacks": (
                'printable("".join(traceback.format_exception(error)), keep="\\n")',
                "server/test_gate.py::test_a_failure_is_in_the_log_with_its_traceback",
                '"".join(traceback.format_exception(error))',
            ),
        },
    ),
    **_here(
        "server/strict_json",
        "server/test_strict_json",
        {
            "escapes": ("if escapes > _OUTSIDE or (escapes and data.count(b'\\\\\"') > _QUOTES):", "test_what_is_refused"),
            "depth of JSON": ("if depth > limits.json_depth:", "test_what_is_refused"),
            "brackets that were not opened": ("if depth < 0:", "test_large_nonsense_is_refused_at_once"),
            "values of JSON": ("if max(values, strings // 2) > limits.json_nodes:", "test_what_is_refused"),
            "bytes outside of strings": ("if outside + len(data) - start > _OUTSIDE:", "test_what_is_refused"),
            "keys twice": ("if len(value) < len(pairs):", "test_what_is_refused"),
            "NaN": ("parse_constant=_constant", "test_what_is_refused", "parse_constant=float"),
            "infinity": ("if not math.isfinite(value):", "test_what_is_refused"),
            "digits": ("if len(text) > _MAX_DIGITS:", "test_what_is_refused"),
            "halves of pairs": ("if _SURROGATE.search(text):", "test_what_is_refused"),
        },
    ),
    **_here(
        "server/media",
        "server/test_media",
        {
            "number of pictures": ("if len(self.images) > self.limits.images:", "test_pictures_are_counted"),
            "bytes of a picture": ("if count > self.limits.image_bytes:", "test_lengths_are_looked_at_before_decoding"),
            "bytes of all pictures": ("if self.bytes > self.limits.images_bytes:", "test_lengths_are_looked_at_before_decoding"),
            "bytes before they are decoded": (
                "    budget.take_bytes(_decoded_size(value, header.end()), where)\n",
                "test_lengths_are_looked_at_before_decoding",
                "",
            ),
            "bytes of a file that was fetched": ("    budget.take_bytes(len(data), where)\n", "test_a_fetched_file_counts", ""),
            "pixels": ("if width * height > self.pixels_left:", "test_pixels_are_added_up"),
            "sides": ("if max(width, height) > self.limits.image_side:", "test_pixels_are_added_up"),
            "data: URLs": ("if not header:", "test_data_urls_that_are_none"),
            "nothing in base64": ("    if not data:\n", "test_data_urls_that_are_none", "    if False:\n"),
            "strict base64": ("strict_mode=True", "test_data_urls_that_are_none", "strict_mode=False"),
            "bare base64 is a picture": ("if not start or not start.startswith(_STARTS):", "test_what_may_not_be_fetched"),
            "hosts that are allowed": (" and url[1].lower() in settings.media_domains:", "test_what_may_not_be_fetched", ":"),
            "spelling of hosts": (
                '_HTTPS = re.compile(r"(?i:https)://([A-Za-z0-9.-]{1,253})(?::443)?(?:[/?][!-~]*)?")',
                "test_what_may_not_be_fetched",
                '_HTTPS = re.compile(r"https://(?:[^/@]*@)?([^/:?#]*).*", re.DOTALL)',
            ),
            "refusals": ("    if data is None:\n        await", "test_what_may_not_be_fetched", "    if False:\n        await"),
            "time of refusals": ("await _until(begun + _REFUSAL_SECONDS)", "test_a_refusal_is_told_after_one_time", "pass"),
            "time of fetches that failed": ("await _until(end)", "test_why_a_fetch_failed_is_not_told", "pass"),
            "time for a fetch": ("asyncio.timeout(_FETCH_SECONDS)", "test_a_slow_fetch_is_given_up", "asyncio.timeout(60)"),
            "redirects": ("redirects=0", "test_an_allowed_address", "redirects=3"),
            "files in the folder": ("not path.is_relative_to(root) or ", "test_files_outside_and_what_is_no_file", ""),
            "names of files": (
                'or not name or "\\0" in name or "\\\\" in name or os.path.isabs(name)',
                "test_files_outside_and_what_is_no_file",
                "",
            ),
            "files that are none": (" or not stat.S_ISREG(path.stat().st_mode)", "test_a_pipe_is_not_even_opened", ""),
            "files that become none": (
                " if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None",
                "test_a_file_that_becomes_a_pipe_meanwhile",
                "",
            ),
            "files that become links": ('getattr(os, "O_NOFOLLOW", 0)', "test_a_file_that_becomes_a_link_meanwhile", "0"),
        },
    ),
    **_here(
        "download",
        "test_download",
        {
            "bytes of a download": ("if len(data) > max_bytes:", "test_too_much_too_slow_too_little"),
            "downloads cut short": ("if response.length:", "test_too_much_too_slow_too_little"),
            "length of addresses": ("if len(text) > MAX_URL:", "test_addresses_that_are_refused_without_a_connection"),
            "schemes": ('if url.scheme != "https":', "test_what_is_no_address_is_not_looked_up"),
            "users in addresses": (
                "if not url.hostname or url.username is not None or url.password is not None:",
                "test_what_is_no_address_is_not_looked_up",
            ),
            "number of redirects": ("if self._followed > self._most:", "test_no_redirect_where_none_is_allowed"),
            "addresses of redirects": ("        _check(newurl)\n", "test_a_redirect_is_an_address_like_any", ""),
            "what comes with a redirect": ("        fp.close()  #", "test_what_comes_with_a_redirect_is_not_read", "        #"),
            "ports of downloads": ("if self.port != PORT:", "test_no_redirect_leads_to_another_port"),
            "public addresses": ("if not all(map(_is_public, addresses)):", "test_a_name_with_any_private_address_is_refused"),
            "addresses in addresses": ("        ip = inner or ip\n", "test_private_addresses", ""),
            "multicast": (" and not ip.is_multicast", "test_private_addresses", ""),
            "the address that was checked": (
                "socket.create_connection((address, PORT)",
                "test_fetching",
                "socket.create_connection((host, PORT)",
            ),
            "time of downloads": (
                "if (left := deadline - time.monotonic()) <= 0:",
                "test_no_time_is_left",
                "left = deadline - time.monotonic()\n    if False:",
            ),
            "time of each piece": (
                "        self._sock.settimeout(_left(self._deadline))\n        return",
                "test_a_server_that_drips_gets_no_more_time_than_any",
                "        return",
            ),
        },
    ),
    **_here(
        "server/decoding",
        "server/test_decoding",
        {
            "what is no picture": ("if kind != DONE:", "test_what_is_no_picture"),
            "pixels of a request": (
                "            budget.take_pixels(width, height, name)\n",
                "test_pixels_of_a_request_together",
                "            pass\n",
            ),
            "time to decode": ("asyncio.timeout(self.limits.decode_seconds)", "test_time_is_limited", "asyncio.timeout(600)"),
            "decoders that died": (
                "if process is None or process.returncode is not None:",
                "test_a_process_that_died_between_two_pictures",
            ),
            "deaths are counted": ("self.deaths += 1", "test_a_process_that_is_killed", "pass"),
            "half-asked decoders": (
                "        except BaseException:  # also where the client leaves: the process is in the middle of something\n"
                "            await self._discard(process)\n            process = None\n",
                "test_a_client_that_leaves_while_its_picture_is_decoded",
                "        except BaseException:\n",
            ),
            "secrets of the parent": (" env=_environment(),", "test_secrets_are_not_handed_down", ""),
        },
    ),
    **_here(
        "server/decoder_child",
        "server/test_decoding",
        {
            "memory to decode": ("resource.setrlimit(resource.RLIMIT_AS, (memory, memory))", "test_memory_is_limited", "pass"),
            "files of decoders": ("resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))", "test_a_process_writes_no_files", "pass"),
            "cores of decoders": (
                "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
                "test_a_process_writes_no_files",
                "resource.setrlimit(resource.RLIMIT_CORE, (0, resource.RLIM_INFINITY))",
            ),
            "formats": (", formats=FORMATS)", "test_a_real_avif_is_not_taken", ")"),
            "pixels by the header": (
                "Limits(length, max_pixels, int(max_side))",
                "test_too_many_pixels_are_known_by_the_header",
                "Limits(length, 1 << 40, int(max_side))",
            ),
        },
    ),
    **_here(
        "server/bodies",
        "server/test_app",
        {
            "forms are for tasks": ("    if _is_form(request):\n        raise", "test_forms_are_for_tasks", "    if False:\n        raise"),
            "bodies are objects": ("if not isinstance(value, dict):", "test_every_body_is_read_strictly"),
            "one picture or several": ("if (one is None) == (not several):", "server/test_native.py::test_what_is_wrong_is_named"),
            "fields in the address": ("if request.url.query:", "server/test_native.py::test_fields_in_the_address_are_refused"),
            "names of files in forms": ("if name not in PICTURES:", "server/test_native.py::test_forms_are_bounded"),
            "files of a form": ("max_files=limits.images", "server/test_native.py::test_forms_are_bounded", "max_files=1 << 30"),
            "fields of a form": ("max_fields=limits.parts", "server/test_native.py::test_forms_are_bounded", "max_fields=1 << 30"),
            "length of a field": (
                "max_part_size=limits.field_bytes",
                "server/test_native.py::test_forms_are_bounded",
                "max_part_size=1 << 30",
            ),
            "bytes of a form's file": (
                "                    budget.take_bytes(len(data), name)\n",
                "server/test_native.py::test_forms_are_bounded",
                "",
            ),
            "JSON in a form": (
                "parse(value.encode(), limits)",
                "server/test_native.py::test_a_form_that_nests_deeply_is_refused",
                "__import__('json').loads(value)",
            ),
        },
    ),
    **_here(
        "server/native",
        "server/test_native",
        {
            "tasks that there are": ("if kind is None:", "test_a_batch_answers_each_and_names_what_is_wrong"),
            "streams in a batch": ("if own.stream:", "test_answers_of_a_batch_come_whole"),
            "clients that left": (
                "await while_there(request, service.answer(",
                "server/test_service.py::test_who_leaves_gives_everything_back",
                "await (service.answer(",
            ),
        },
    ),
    **_here(
        "server/schemas",
        "server/test_native",
        {
            "unknown fields": (
                'ConfigDict(extra="forbid", allow_inf_nan=False)',
                "test_what_is_wrong_is_named",
                "ConfigDict(allow_inf_nan=False)",
            ),
            "length of prompts": ("StringConstraints(max_length=65_536)", "test_what_is_wrong_is_named", "StringConstraints()"),
            "requests of a batch": (
                "Field(min_length=1, max_length=256)]\n\n\n# Answers",
                "test_a_batch_that_is_none",
                "Field()]\n\n\n# Answers",
            ),
        },
    ),
    **_here(
        "server/openai",
        "server/test_openai",
        {
            "what is not served": (
                "if not any(given == one and isinstance(given, bool) == isinstance(one, bool) for one in harmless):",
                "test_what_is_not_served_is_refused_by_name",
            ),
            "False is not 0": (" and isinstance(given, bool) == isinstance(one, bool)", "test_what_is_not_served_is_refused_by_name", ""),
            "a turn of the user's": ("if place is None:", "test_what_is_not_served_is_refused_by_name"),
            "a prompt": ("if not words:", "test_what_is_not_served_is_refused_by_name"),
            "likelihoods beside": ("if top and not body.logprobs:", "test_what_is_not_served_is_refused_by_name"),
            "a picture": ("if not files:", "test_what_is_not_served_is_refused_by_name"),
        },
    ),
    **_here("server/models", "server/test_openai", {"names of models": ("if name not in service.names:", "test_models")}),
    **_here(
        "server/page_files",
        "server/test_app",
        {
            "files of the page": ("if name not in files:", "test_files_are_looked_up_in_a_list"),
            "what the page may run": (
                'headers={"Content-Security-Policy": POLICY, ',
                "test_the_page_runs_nothing_but_its_own",
                "headers={",
            ),
        },
    ),
    **_here(
        "server/app",
        "server/test_app",
        {
            "no other routes": ("        docs_url=None,", "test_there_are_these_routes_and_no_others", "       "),
            "nothing leads elsewhere": ("redirect_slashes=False", "test_nothing_leads_elsewhere", "redirect_slashes=True"),
        },
    ),
    **_here(
        "server/scheduler",
        "server/test_scheduler",
        {
            "closed": ("if not self.open:", "test_a_closed_scheduler_takes_nothing"),
            "places in the queue": (
                "if self.depth + self._coming.total() >= self.waiting + room:",
                "test_who_comes_to_a_full_queue_is_refused_at_once",
            ),
            "places of one client": (
                "if self._entered.get(client, 0) + self._coming[client] >= self.waiting_each + room:",
                "test_one_client_cannot_fill_the_queue",
            ),
            "what never fits": (
                "if place.rows > self.rows or place.tokens > self.tokens:",
                "test_what_never_fits_is_refused_and_what_does_not_fit_yet_is_passed_by_nobody",
            ),
            "what does not fit yet": (
                "            return place if self._fits(place) else None\n",
                "test_what_never_fits_is_refused_and_what_does_not_fit_yet_is_passed_by_nobody",
                "            if self._fits(place):\n                return place\n",
            ),
            "patience": (
                "max(0.0, self.scheduler.patience - (time.monotonic() - self._entered))",
                "test_patience_ends_and_leaves_no_trace",
                "6",
            ),
            "turns at the last moment": ("if not self._inside:  #", "test_a_turn_that_comes_as_patience_ends_is_taken", "if True:  #"),
            "clients take turns": (
                "self._queues[place.client] = queue  #",
                "test_clients_take_turns",
                "self._queues[place.client] = queue; self._queues.move_to_end(place.client, last=False)  #",
            ),
            "one adapter at a time": (
                "if place.adapter != self._adapter and self._inside:",
                "test_one_adapter_works_at_a_time_and_none_waits_for_ever",
            ),
            "impatient adapters": ("[oldest] if insist else heads", "test_one_adapter_works_at_a_time_and_none_waits_for_ever", "heads"),
            "room that is given back": ("self._inside.discard(place)", "test_who_leaves_gives_up_the_place", "pass"),
        },
    ),
    **_here(
        "server/service",
        "server/test_service",
        {
            "models that there are": ("if name not in self.names:", "server/test_native.py::test_what_is_wrong_is_named"),
            "tokens of a prompt": (
                "if len(ids) > limits.prompt_tokens:",
                "server/test_native.py::test_lengths_are_refused_with_both_numbers",
            ),
            "context": ("if whole > limits.context:", "server/test_native.py::test_lengths_are_refused_with_both_numbers"),
            "tokens of an answer": (
                "if planned.options.max_tokens > limits.most_tokens:",
                "server/test_native.py::test_what_is_wrong_is_named",
            ),
            "pictures of a prompt": (
                "if len(fields) > (most := self.most_pictures(question.adapter)):",
                "server/test_native.py::test_what_is_wrong_is_named",
            ),
            "models whose looks cannot be seen": ("if not self.explains:", "test_what_cannot_be_explained_is_refused"),
            "beams are not explained": (
                'if question.how.get("beams", 1) > 1:',
                "server/test_native.py::test_what_cannot_be_explained_is_refused",
            ),
            "films are not explained": ("if len(question.pictures) > 1:", "test_what_cannot_be_explained_is_refused"),
            "long answers are not explained": (
                "if len(generation.ids) * self.config.vision.num_tokens > self.settings.limits.explained_numbers:",
                "test_what_cannot_be_explained_is_refused",
            ),
            "deadline": ("async with asyncio.timeout(limits.request_seconds), self", "test_patience_and_deadline", "async with self"),
            "health": (
                "return self.batcher.stalled < self.settings.limits.stall_seconds",
                "test_the_engines_health_is_the_servers",
                "return True",
            ),
            "no questions at the end": (
                "        self.scheduler.open = False\n",
                "test_draining_waits_for_what_is_in_but_not_for_ever",
                "",
            ),
            "an end to the end": (" and time.monotonic() < end:", "test_draining_waits_for_what_is_in_but_not_for_ever", ":"),
            "what can be streamed": ("if watcher is not None:", "server/test_native.py::test_what_is_wrong_is_named"),
            "refusals are counted": (
                "            raise late from None\n        except Refused as refused:\n            self.metrics.refused(refused.code)\n",
                "test_patience_and_deadline",
                "            raise late from None\n        except Refused as refused:\n",
            ),
            "deadlines are counted": ("            self.metrics.refused(late.code)\n", "test_patience_and_deadline", ""),
        },
    ),
    **_here(
        "server/health",
        "server/test_service",
        {
            "dead engines": ("if not service.healthy:", "test_the_engines_health_is_the_servers"),
            "not ready at the end": ("if not service.scheduler.open:", "test_draining_answers_what_is_in_and_takes_nothing_more"),
        },
    ),
    **_here(
        "server/streaming",
        "server/test_streaming",
        {
            "work of clients that left": ("if not task.done():", "test_work_ends_with_its_client"),
            "work that nobody waits for": (
                "        gone.cancel()\n        task.cancel()\n",
                "test_work_ends_with_whoever_waits_for_it",
                "        gone.cancel()\n",
            ),
            "refusals before a stream": (
                "            if isinstance(outcome, Refused):\n                raise outcome",
                "test_what_is_refused_before_the_first_piece_is_raised_and_after_it_is_the_last_event",
                "            if False:\n                raise outcome",
            ),
            "streams of clients that left": (
                "        finally:\n            self._task.cancel()\n",
                "server/test_service.py::test_who_leaves_gives_everything_back",
                "        finally:\n            pass\n",
            ),
        },
    ),
    **_here(
        "server/replicas",
        "server/test_replicas",
        {
            "key of replicas": ("if not settings.api_keys and not settings.no_auth:", "test_replicas_ask_for_a_key"),
            "words that are none": ("if unknown := sorted(words.keys() - _WORDS.keys()):", "test_words_that_cannot_be_meant_are_refused"),
            "health of replicas": ("if not self._service.healthy:", "test_a_replica_whose_engine_is_dead_says_so"),
            "failures that are none of a replica's death": ("if not _died(error):", "test_other_failures_are_not_tried_again"),
            "what is shown": (
                "                if begun:\n                    await",
                "test_what_is_shown_cannot_be_taken_back",
                "                if False:\n                    await",
            ),
            "tries": ("range(1, TRIES + 1)", "test_it_is_not_tried_for_ever", "range(1, TRIES + 3)"),
            "clients that left the door": ("if not passing.done():", "test_who_leaves_ends_the_work"),
        },
    ),
    **_here(
        "server/running",
        "cli/test_serving",
        {
            "what clients say of themselves": (
                "proxy_headers=False",
                "test_it_answers_and_ends_when_told_once_answers_are_written",
                "proxy_headers=True",
            ),
            "answers under way at the end": (
                "            self._draining = asyncio.ensure_future(self._drain())",
                "test_it_answers_and_ends_when_told_once_answers_are_written",
                "            self.force_exit = self.should_exit = True",
            ),
        },
    ),
    **_here(
        "engine/features",
        "engine/test_features",
        {
            "adapters see differently": (
                "(owner, self.network.sight, digest)",
                "test_what_was_seen_through_another_adapter_is_another_thing",
                "(owner, None, digest)",
            ),
            "clients see for themselves": (
                "(owner, self.network.sight, digest)",
                "test_what_was_seen_is_kept_for_each_owner",
                "(None, self.network.sight, digest)",
            ),
            "pictures that are kept": ("while len(self._kept) > self.keep:", "test_pictures_are_encoded_together_and_once", "while False:"),
        },
    ),
    **_here(
        "server/searching",
        "server/test_searching",
        {"searches that wait": ("if self._waiting >= WAITING:", "test_so_many_wait_and_no_more")},
    ),
    **_here(
        "server/label_studio",
        "server/test_label_studio",
        {
            "definitions in XML": ('if "<!DOCTYPE" in config or "<!ENTITY" in config:', "test_no_definitions_in_the_configuration"),
            "tags of a project": ("if len(known) > MOST_CONTROLS:", "test_a_configuration_is_bounded"),
            "words only": ('if asked.verb in ("detect", "segment"):', "test_words_are_not_asked_for_with_prompts_of_places"),
            "pictures of tasks": ("if not isinstance(value, str):", "test_a_task_without_a_picture"),
            "projects without tags": ("if not asked:", "test_what_cannot_be_answered_is_left_out_and_nothing_is_refused"),
            "questions of a request": (
                "if len(body.tasks) * len(asked) > settings.limits.batch:",
                "test_so_many_questions_and_no_more",
            ),
            "refusals of all": ("if refused.status >= ALL_FAIL:", "test_a_full_server_is_said_of_the_whole_request"),
            "all pictures bad": ("if len(failed) == len(tasks):", "test_one_bad_picture_costs_the_others_nothing"),
        },
    ),
    **_here(
        "client",
        "server/test_client",
        {
            "once more": ("if again and isinstance", "test_it_is_not_asked_for_ever_nor_once_an_answer_has_begun", "if isinstance"),
            "answers broken off": (
                "except (OSError, http.client.HTTPException) as error:\n        raise",
                "test_it_is_not_asked_for_ever_nor_once_an_answer_has_begun",
                "except ZeroDivisionError as error:\n        raise",
            ),
        },
    ),
}
