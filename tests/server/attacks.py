"""What strangers may try, S1 to S35, what must come of it, and the tests that prove it: `python -m tests.server.attacks` prints the list.

Where a row is held in part only, `but` says what is missing or different.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    """`tests`: below tests/, file::function, with the case in brackets where one case is meant."""

    what: str
    comes_of_it: str
    tests: tuple[str, ...]
    but: str = ""


def _tests(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}.py::{name}" for name in names)


ATTACKS: dict[str, Attack] = {
    "S1": Attack(
        "a body of 33 MiB, announced",
        "413 before it is read; memory grows by less than 16 MiB",
        _tests("server/test_gate", "test_a_body_that_is_announced_too_large_is_not_read"),
    ),
    "S2": Attack(
        "a chunked body without an end",
        "413 at the limit, the connection is closed",
        _tests("server/test_gate", "test_an_endless_body_ends", "test_a_body_within_the_limit"),
    ),
    "S3": Attack(
        "Content-Length of -1, 1e99, two values, beside Transfer-Encoding",
        "400, and no request hidden in the body is answered",
        _tests(
            "server/test_protocol",
            "test_a_body_of_no_certain_length",
            "test_nothing_follows_a_mistake",
            "test_nothing_follows_a_refusal_in_mid_body",
        )
        + _tests("server/test_campaigns", "test_nothing_is_found[C8]"),
    ),
    "S4": Attack("a packed body", "415, nothing is unpacked", _tests("server/test_gate", "test_bodies_of_other_kinds")),
    "S5": Attack(
        "JSON with NaN, 1e400, 5,000 digits, 100,000 brackets, a key twice, half a surrogate pair, no UTF-8; a NUL",
        "400 within 50 ms of computing, on every path; a NUL is a character",
        _tests("server/test_strict_json", "test_what_is_refused", "test_what_is_right")
        + _tests("server/test_app", "test_every_body_is_read_strictly")
        + _tests("server/test_native", "test_a_nul_in_words_is_a_character"),
    ),
    "S6": Attack(
        "n of 10^9, max_tokens of -1, 0, 10^12, true, '5', a million stop words, logit_bias of no token",
        "400 that names the field",
        _tests("server/test_openai", "test_what_is_not_served_is_refused_by_name", "test_a_million_stop_words_are_not_even_looked_at"),
    ),
    "S7": Attack(
        "min above max, fields that would change the meaning (tools, response_format), stream of another type",
        "400; what changes nothing is ignored",
        _tests("server/test_openai", "test_what_is_not_served_is_refused_by_name", "test_fields_that_change_nothing_are_ignored")
        + _tests("server/test_native", "test_what_is_wrong_is_named"),
    ),
    "S8": Attack(
        "knobs of the picture's processor: mm_processor_kwargs, size, fps",
        "ignored by the chat, 400 from a task",
        _tests("server/test_openai", "test_fields_that_change_nothing_are_ignored")
        + _tests("server/test_native", "test_what_is_wrong_is_named"),
    ),
    "S9": Attack(
        "20,000 x 20,000 pixels in some kilobytes, 10,000 x 9,000",
        "400 by the header alone; memory grows by less than 20 MiB",
        _tests("server/test_decoding", "test_too_many_pixels_are_known_by_the_header"),
    ),
    "S10": Attack(
        "1x1, 1x30,000, 3x3, grey, grey with alpha, palette with alpha, CMYK, 16 bits, turned by EXIF",
        "answered, upright",
        _tests("server/test_decoding", "test_every_kind_is_as_the_model_sees_it")
        + _tests("test_image", "test_orientation", "test_odd_shapes"),
    ),
    "S11": Attack(
        "EPS, TIFF, PSD, SVG, PDF, ICO, HTML, nothing, a file cut short, a PNG short of rows",
        "400, one text for all",
        _tests("server/test_decoding", "test_what_is_no_picture", "test_a_real_avif_is_not_taken", "test_mutated_files_cost_no_process"),
    ),
    "S12": Attack(
        "a GIF of 100,000 frames, an animated PNG, an MPO",
        "the first frame, and no time for the others",
        _tests("server/test_decoding", "test_a_very_long_animation", "test_every_kind_is_as_the_model_sees_it"),
    ),
    "S13": Attack(
        "texts and profiles that unpack to 256 MiB, EXIF in a circle and of megabytes",
        "read or 400, in little memory; a child's memory and time are limited",
        _tests("server/test_decoding", "test_what_comes_with_a_picture_costs_little", "test_memory_is_limited", "test_time_is_limited"),
    ),
    "S14": Attack(
        "a picture that kills its decoder",
        "400 for that one, the server lives, the death is counted",
        _tests("server/test_decoding", "test_a_process_that_is_killed", "test_a_process_that_died_between_two_pictures"),
    ),
    "S15": Attack(
        "data: URLs without a comma, without base64, percent-encoded, in capitals, with spaces, of 40 MiB, of another picture's type",
        "400; a wrong type of a picture is no matter",
        _tests("server/test_media", "test_data_urls_that_are_none", "test_base64", "test_lengths_are_looked_at_before_decoding"),
    ),
    "S16": Attack(
        "addresses of this machine and its network in all spellings, users, ports, hosts like an allowed one",
        "400, one text after one time, no socket is opened",
        _tests("server/test_media", "test_what_may_not_be_fetched", "test_a_refusal_is_told_after_one_time")
        + _tests("test_download", "test_addresses_that_are_refused_without_a_connection", "test_what_is_no_address_is_not_looked_up")
        + _tests("server/test_campaigns", "test_nothing_is_found[C8]"),
    ),
    "S17": Attack(
        "an allowed host that leads to 127.0.0.1, whose name changes its meaning, or has a private address among others",
        "400, one text after one time; the address that was checked is the one that is dialled",
        _tests(
            "test_download",
            "test_no_redirect_where_none_is_allowed",
            "test_redirects_are_checked_each",
            "test_a_name_is_looked_up_once",
            "test_a_name_with_any_private_address_is_refused",
            "test_fetching",
        )
        + _tests("server/test_media", "test_why_a_fetch_failed_is_not_told"),
    ),
    "S18": Attack(
        "an allowed host that drips, does not end, sends packed files or another length than it says",
        "400 within 10 s and 20 MiB, nothing is unpacked",
        _tests(
            "test_download",
            "test_a_server_that_drips_gets_no_more_time_than_any",
            "test_too_much_too_slow_too_little",
            "test_nothing_is_unpacked",
        )
        + _tests("server/test_media", "test_a_slow_fetch_is_given_up", "test_an_allowed_address"),
    ),
    "S19": Attack(
        "file:///etc/passwd, .., other slashes, links out of the folder, /dev/zero, a pipe",
        "400 with the text of S16, never waiting",
        _tests(
            "server/test_media",
            "test_files_outside_and_what_is_no_file",
            "test_a_pipe_is_not_even_opened",
            "test_a_file_that_becomes_a_pipe_meanwhile",
            "test_a_file_that_becomes_a_link_meanwhile",
            "test_what_may_not_be_fetched",
        ),
    ),
    "S20": Attack(
        "words that spell <image>, <bos>, <eos>, <pad>, <unused0>, <start_of_turn>",
        "words; no control token in the ids, and no neighbour notices",
        _tests("test_tokenizer", "test_everything_else_in_brackets_stays_text", "test_any_text")
        + _tests("server/test_native", "test_control_tokens_in_words_are_words")
        + _tests("server/test_campaigns", "test_nothing_is_found[C5]"),
    ),
    "S21": Attack(
        "words that spell <loc0001>, <seg127>; <loc1024>, <loc12>, <seg128>",
        "the first are locations unless allow_location_tokens is false, the others words",
        _tests("test_tokenizer", "test_locations_become_ids_when_asked", "test_everything_else_in_brackets_stays_text")
        + _tests("server/test_openai", "test_locations_may_be_words"),
    ),
    "S22": Attack(
        "no picture, <image> in words without one, too many pictures, two for a model that was taught with one",
        "400",
        _tests("server/test_openai", "test_what_is_not_served_is_refused_by_name")
        + _tests("server/test_native", "test_what_is_wrong_is_named")
        + _tests("server/test_media", "test_pictures_are_counted"),
        but="published files do not say how many pictures a prompt had: of these models a request may have as many as the limits allow",
    ),
    "S23": Attack(
        "more than 512 tokens of text, more than 8,192 in all",
        "400 with both numbers",
        _tests("server/test_native", "test_lengths_are_refused_with_both_numbers"),
    ),
    "S24": Attack(
        "answers of garbage, half a box, 300 boxes, <script>, control characters",
        "read without a fault, 256 objects at most; the page shows text, runs nothing but its own; logs show escapes",
        _tests("tasks/test_detect", "test_any_text_parses", "test_random_token_streams_parse", "test_at_most_256_objects")
        + _tests("server/test_app", "test_the_page_runs_nothing_but_its_own")
        + _tests("server/test_page", "test_text_is_never_html")
        + _tests(
            "server/test_gate", "test_the_log_has_one_line_without_control_characters", "test_a_failure_is_in_the_log_with_its_traceback"
        ),
    ),
    "S25": Attack(
        "ten times what it can do, for a minute",
        "200, 429 and 503 only, quick refusals, a bounded queue, an answer 2 s after it",
        _tests("server/test_scheduler", "test_who_comes_to_a_full_queue_is_refused_at_once", "test_one_client_cannot_fill_the_queue")
        + _tests("server/test_service", "test_a_full_queue_refuses_quickly_and_recovers", "test_patience_and_deadline"),
    ),
    "S26": Attack(
        "clients that leave in the body, the queue, the prompt, the answer, a stream, or half closed",
        "place and rows are back soon (2 s by C10 on its own, 10 s among the tests), and the log does not call it an error",
        _tests("server/test_service", "test_who_leaves_gives_everything_back")
        + _tests("server/test_campaigns", "test_nothing_is_found[C10]")
        + _tests("server/test_streaming", "test_who_leaves_is_no_failure_in_the_log")
        + _tests("server/test_gate", "test_a_client_that_leaves_is_no_error"),
    ),
    "S27": Attack(
        "200 connections that say next to nothing",
        "others are served; these are hung up on when their time is over",
        _tests(
            "server/test_protocol",
            "test_two_hundred_slow_connections_within_the_limit",
            "test_many_slow_connections_do_not_stop_the_others",
            "test_slow_headers",
        )
        + _tests("server/test_gate", "test_a_slow_body"),
    ),
    "S28": Attack(
        "one request in a batch of 8 that fails in the engine",
        "it alone fails; the others' tokens are as without it",
        _tests("server/test_service", "test_one_that_fails_fails_alone")
        + _tests(
            "engine/test_continuous",
            "test_an_error_ends_its_own_job_only",
            "test_one_whose_step_fails_fails_alone",
            "test_what_fails_only_together_is_answered",
        ),
    ),
    "S29": Attack(
        "no memory in the engine",
        "503, what it held is free, the next one is answered; an engine that stands still is not healthy",
        _tests("server/test_service", "test_one_that_fails_fails_alone", "test_the_engines_health_is_the_servers")
        + _tests("engine/test_continuous", "test_a_network_that_fails_for_each_loses_what_it_was_writing_and_goes_on")
        + _tests("engine/test_batcher", "test_memory_that_runs_out_is_its_own_error")
        + _tests("server/test_refusals", "test_what_becomes_what"),
    ),
    "S30": Attack(
        "another Host, another site's Origin, its preflight",
        "403 and no CORS headers",
        _tests(
            "server/test_gate",
            "test_other_names_are_refused",
            "test_a_key_does_not_replace_the_host",
            "test_pages_of_other_sites",
            "test_an_origin_that_is_allowed",
        ),
    ),
    "S31": Attack(
        "no key, a wrong one, in the query, of a megabyte, not ASCII; ways around a path",
        "401 or 404 (431 for the megabyte); no route but the page and /healthz is open",
        _tests("server/test_gate", "test_no_key_no_entry", "test_a_key_of_a_megabyte", "test_ways_around_a_path", "test_what_is_open")
        + _tests("server/test_app", "test_none_but_the_open_ones_can_be_reached_without_a_key"),
    ),
    "S32": Attack(
        "a model called ../../x, of 10 kB, with a NUL",
        "404; names are looked up, none becomes a path",
        _tests("server/test_native", "test_what_is_wrong_is_named") + _tests("server/test_openai", "test_models"),
    ),
    "S33": Attack(
        "searches for 10^9 pictures, by a wrong vector, files by a made-up id",
        "100 results at most, vectors are never taken from outside; files of the page are looked up in a list",
        _tests("server/test_app", "test_there_are_these_routes_and_no_others", "test_files_are_looked_up_in_a_list")
        + _tests("server/test_searching", "test_what_cannot_be_asked", "test_so_many_wait_and_no_more"),
    ),
    "S34": Attack(
        "two clients with one picture",
        "each gets its own answer; what is kept is known by all of the picture, the adapter and the client: none comes sooner for it",
        _tests(
            "server/test_service",
            "test_questions_of_a_client_share_what_the_model_sees_and_nothing_else",
            "test_many_at_once_get_what_each_gets_alone",
        )
        + _tests(
            "engine/test_features",
            "test_what_was_seen_through_another_adapter_is_another_thing",
            "test_pictures_are_encoded_together_and_once",
            "test_what_was_seen_is_kept_for_each_owner",
        ),
    ),
    "S35": Attack(
        "SIGTERM in a stream; SIGKILL and a new start",
        "answers that are in are written, then it ends with 0; a new start needs no cleaning up",
        _tests(
            "cli/test_serving", "test_it_answers_and_ends_when_told_once_answers_are_written", "test_killed_it_starts_again_where_it_was"
        )
        + _tests(
            "server/test_service",
            "test_draining_answers_what_is_in_and_takes_nothing_more",
            "test_draining_waits_for_what_is_in_but_not_for_ever",
        ),
    ),
}


def main() -> None:
    for name, attack in ATTACKS.items():
        print(f"{name:4} {attack.what}\n     -> {attack.comes_of_it}")
        if attack.but:
            print(f"     but {attack.but}")
        for test in attack.tests:
            print(f"        {test}")


if __name__ == "__main__":
    main()
