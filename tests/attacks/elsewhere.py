"""Cases of the corpus whose tests are elsewhere, beside what they are about.

test_registry.py checks that every one of them exists.
"""

from __future__ import annotations

from tests.attacks.case import NotHere

CALLS = "tests/unit/test_calls.py"
TOOLS = "tests/contract/test_tools_contract.py"
REFUSED = "tests/unit/test_calls_refused.py"
LIMITS = "tests/contract/test_tool_limits_contract.py"
ATTACKS = "tests/contract/test_tool_attacks_contract.py"
ENGINE = "tests/docker/test_engine_ignores.py"
DOCTOR = "tests/docker/test_doctor.py"
SESSION = "tests/unit/test_session.py"
VALUES = "tests/unit/test_values_hostile.py"
PROOF = "tests/unit/test_proof.py"
LIFE = "tests/docker/test_life.py"
CONSOLE = "tests/unit/test_agents_console.py"
SANITISE = "tests/unit/test_sanitise.py"
OBSERVATION = "tests/unit/test_agents_observation.py"
AROUND = "tests/attacks/test_around.py"
LOCAL = "tests/faults/test_local_user.py"


def _held(id: str, name: str, *tests: str) -> NotHere:
    return NotHere(id, name, tests=tests)


_AROUND = [
    _held(
        "RES-26",
        "sandboxes opened and closed without end leave something",
        f"{AROUND}::test_opening_and_closing_leaves_nothing",
        "tests/faults/test_many_sessions.py::test_a_storm_of_openers_is_admitted_up_to_the_limit_and_leaves_nothing",
    ),
    _held(
        "XSN-11",
        "of many sandboxes, one that is attacked disturbs the others",
        f"{AROUND}::test_the_others_finish_while_one_is_attacked",
    ),
    _held(
        "HST-01",
        "another user of the machine reaches a session",
        f"{LOCAL}::test_another_user_reaches_nothing_of_a_session",
    ),
    _held(
        "HST-02",
        "a folder that somebody else has made, or a link, becomes the place of sessions",
        f"{LOCAL}::test_a_runtime_folder_that_somebody_else_has_made_or_linked_is_refused",
        f"{LIFE}::test_a_runtime_folder_open_to_others_is_refused",
    ),
    _held(
        "HST-04",
        "arguments or environments of processes tell a secret",
        f"{LOCAL}::test_no_secret_is_in_the_arguments_or_the_environment_of_any_process",
        f"{LOCAL}::test_no_secret_is_in_what_the_engine_tells_of_a_container",
    ),
    _held(
        "HST-05",
        "something goes on when the orchestrator was killed",
        "tests/faults/test_killed_orchestrator.py::test_killed_at_this_moment_it_leaves_nothing",
        f"{LIFE}::test_a_killed_orchestrator_leaves_nothing_running",
        f"{LIFE}::test_a_stopped_orchestrator_loses_its_container_after_the_lease",
    ),
    _held(
        "HST-07",
        "an image that is another is taken",
        f"{ENGINE}::test_another_image_under_the_same_id_is_refused",
        f"{DOCTOR}::test_an_image_of_other_sources_under_our_name_is_refused",
        f"{LIFE}::test_an_image_that_is_no_executor_fails_to_start",
    ),
    _held(
        "HST-08",
        "a setting that the engine ignored is not noticed",
        f"{ENGINE}::test_a_setting_that_the_engine_ignores_is_named_and_nothing_is_started",
        f"{ENGINE}::test_an_engine_that_ignores_a_setting_and_says_otherwise_is_found_out_from_inside",
        "tests/docker/test_isolation.py::test_every_layer_is_in_force",
    ),
    _held(
        "XSN-04",
        "an executor answers in the name of another session or step",
        f"{SESSION}::test_another_executions_id_is_a_violation",
        f"{SESSION}::test_the_id_of_the_execution_before_is_a_violation",
        f"{LIFE}::test_a_host_that_does_not_know_the_token_is_refused",
    ),
]
_TOOLS = [
    _held(
        "TOOL-01",
        "a tool that was not granted is called",
        f"{REFUSED}::test_a_tool_that_is_not_granted_is_refused",
        f"{ATTACKS}::test_only_exactly_the_granted_names_can_be_called",
        "tests/unit/test_policy.py::test_a_name_that_is_not_exactly_granted_is_denied",
    ),
    _held(
        "TOOL-02",
        "a tool is called without end",
        f"{REFUSED}::test_calls_over_the_budget_are_refused_and_the_tool_is_not_called",
        f"{REFUSED}::test_too_many_at_once_are_refused_until_some_have_ended",
        f"{ATTACKS}::test_a_loop_of_calls_ends_at_the_budget",
    ),
    _held(
        "TOOL-04",
        "calls from threads, or within calls, tie each other up",
        f"{TOOLS}::test_tools_called_from_threads",
        f"{ATTACKS}::test_calls_from_a_repr_are_calls_like_others",
        f"{ATTACKS}::test_a_tool_may_use_another_sandbox_with_the_same_tool",
        "tests/docker/test_misuse.py::test_a_tool_that_uses_the_sandbox_it_is_called_from_is_told_so",
    ),
    _held(
        "TOOL-05",
        "a tool is called when the step is over",
        "tests/docker/test_bad_input.py::test_a_thread_that_calls_a_tool_too_late_takes_no_command",
        f"{ATTACKS}::test_a_call_after_the_end_of_its_execution_is_not_made",
        f"{ATTACKS}::test_a_closure_of_an_earlier_execution_calls_in_the_present_one",
    ),
    _held(
        "TOOL-07",
        "a slow tool outlives the step's deadline",
        f"{TOOLS}::test_a_tool_that_hangs_does_not_outlast_the_deadline",
        f"{LIMITS}::test_a_tool_slower_than_the_deadline_is_given_up_and_never_called_again",
    ),
    _held(
        "TOOL-08",
        "a tool's result or failure is too large, or tells too much",
        f"{REFUSED}::test_a_result_over_the_budget_of_bytes_is_not_sent_and_said_to_have_been_made",
        f"{CALLS}::test_no_traceback_of_the_host_and_no_more_than_the_bound_goes_back",
        f"{TOOLS}::test_a_tool_can_hide_its_errors",
    ),
    _held(
        "TOOL-10", "a tool of another session is called", f"{ATTACKS}::test_the_grant_of_one_session_is_none_in_another"
    ),
    NotHere(
        "TOOL-11", "an argument attacks what is behind the tool", "the tool's own affair; it gets its arguments as data"
    ),
]
_PROTOCOL = [
    _held(
        "PRO-01",
        "a message over its limit is taken in",
        f"{PROOF}::test_every_largest_message_of_an_executor_fits_through_grpc",
    ),
    _held(
        "PRO-02",
        "an endless stream of legal messages is taken in",
        f"{SESSION}::test_output_over_the_cap_is_a_violation_and_counts_both_streams",
        f"{SESSION}::test_an_empty_piece_of_output_is_illegal",
    ),
    _held(
        "PRO-04",
        "malformed messages harm the host",
        f"{SESSION}::test_whatever_parses_is_legal_or_a_violation",
        f"{VALUES}::test_any_bytes_decode_to_plain_values_or_are_a_violation",
    ),
    _held(
        "PRO-05",
        "messages in another order are taken",
        f"{SESSION}::test_a_message_that_is_not_in_the_table_is_a_violation",
    ),
    _held(
        "PRO-07",
        "a recorded stream is taken for a new one",
        f"{PROOF}::test_a_proof_is_of_its_token_its_label_and_each_nonce",
    ),
    _held(
        "PRO-08",
        "an executor that does not answer holds the host up",
        f"{LIFE}::test_a_paused_container_does_not_hang_the_host",
        f"{LIFE}::test_a_container_killed_during_an_execution_is_an_error_to_the_caller",
    ),
    _held("PRO-10", "another version is spoken", f"{LIFE}::test_an_image_of_another_protocol_version_says_what_to_do"),
    NotHere(
        "PRO-11",
        "the executor asks for a file or a secret",
        "the protocol has no such message: docs/protocol.md has all there are",
    ),
    _held(
        "PRO-13",
        "the host's own messages are over their limits",
        "tests/docker/test_bad_input.py::test_five_megabytes_of_source",
    ),
]
_TEXTS = [
    _held(
        "TRM-01",
        "output drives a terminal",
        f"{CONSOLE}::test_nothing_shown_can_drive_the_terminal",
        f"{SANITISE}::test_sanitise",
    ),
    _held("TRM-02", "output overwrites or hides what is shown", f"{SANITISE}::test_sanitise"),
    _held(
        "TRM-04",
        "output that is no text breaks what shows it",
        "tests/docker/test_bad_input.py::test_a_lone_surrogate_is_printed_as_an_escape",
        f"{SANITISE}::test_no_control_character_of_any_plane_is_left",
    ),
    NotHere(
        "TRM-05",
        "markup in a result is active in an interface",
        "there is no interface that renders; NET-13 shows that nothing is fetched",
    ),
    _held(
        "INJ-01",
        "output speaks as somebody else to the model",
        "tests/unit/test_memory.py::test_output_stays_inside_its_fence",
        "tests/unit/test_memory.py::test_each_step_has_a_fence_of_its_own",
    ),
    _held(
        "INJ-02",
        "output closes its own fence",
        "tests/unit/test_memory.py::test_output_stays_inside_its_fence",
        "tests/unit/test_memory.py::test_role_tokens_of_open_models_are_broken",
    ),
    NotHere("INJ-04", "text claims a final answer or a larger budget", "TKO-13c: text decides nothing"),
    _held(
        "INJ-05", "the place where output was cut is chosen by it", f"{OBSERVATION}::test_long_texts_keep_head_and_tail"
    ),
    NotHere(
        "ARC-01",
        "an archive of the code's writes outside",
        "the host unpacks nothing: files are read one by one, by name",
    ),
    NotHere("ARC-02", "an archive of the code's unpacks to more than there is room for", "the host unpacks nothing"),
    NotHere("ARC-04", "a document of the code's is active", "the host opens and renders nothing: files are bytes"),
]
NOT_HERE: list[NotHere] = [*_AROUND, *_TOOLS, *_PROTOCOL, *_TEXTS]
