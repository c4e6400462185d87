//! A node of several workers answers as one of a single worker does, wherever clients and keyspaces are.

use crate::harness::{ALONE, Node, SHAPE, Shape};
use crate::{
    administration, blocking, entry, introspection, keyspaces, latency, memory, publishing, slices, stalls,
    transactions,
};

/// The promises that are tested on one worker, but those that look into it.
const PROMISES: &[(fn(), &str)] = &[
    (administration::refusals_read_as_in_redis, "refusals_read_as_in_redis"),
    (
        administration::settings_are_read_by_patterns_and_changed_all_or_none,
        "settings_are_read_by_patterns_and_changed_all_or_none",
    ),
    (administration::requests_reach_the_process_once, "requests_reach_the_process_once"),
    (administration::clients_are_listed_and_cut, "clients_are_listed_and_cut"),
    (administration::a_pause_holds_back_what_it_says, "a_pause_holds_back_what_it_says"),
    (administration::debug_sleep_holds_only_its_own_connection, "debug_sleep_holds_only_its_own_connection"),
    (administration::idle_clients_are_cut_when_asked_for, "idle_clients_are_cut_when_asked_for"),
    (
        blocking::waiting_clients_are_served_in_the_order_they_came,
        "waiting_clients_are_served_in_the_order_they_came",
    ),
    (blocking::waiting_ends_in_time_or_by_another_client, "waiting_ends_in_time_or_by_another_client"),
    (
        blocking::who_waits_is_served_before_later_commands_of_the_same_turn,
        "who_waits_is_served_before_later_commands_of_the_same_turn",
    ),
    (
        blocking::a_write_that_serves_nobody_leaves_who_waits_waiting,
        "a_write_that_serves_nobody_leaves_who_waits_waiting",
    ),
    (latency::every_command_is_in_its_histogram, "every_command_is_in_its_histogram"),
    (
        latency::who_waits_is_measured_when_served_and_a_transaction_as_one,
        "who_waits_is_measured_when_served_and_a_transaction_as_one",
    ),
    (latency::histograms_are_forgotten_with_the_counters, "histograms_are_forgotten_with_the_counters"),
    (introspection::info_has_the_fields_that_clients_parse, "info_has_the_fields_that_clients_parse"),
    (
        introspection::functions_can_be_cleared_and_listed_though_there_is_never_one,
        "functions_can_be_cleared_and_listed_though_there_is_never_one",
    ),
    (introspection::commands_are_told_from_the_tables, "commands_are_told_from_the_tables"),
    (introspection::every_container_has_help, "every_container_has_help"),
    (keyspaces::keyspaces_are_chosen_and_refused_as_in_redis, "keyspaces_are_chosen_and_refused_as_in_redis"),
    (
        keyspaces::flushall_empties_every_keyspace_and_answers_once,
        "flushall_empties_every_keyspace_and_answers_once",
    ),
    (
        keyspaces::flushall_is_refused_as_a_whole_when_the_log_is_full,
        "flushall_is_refused_as_a_whole_when_the_log_is_full",
    ),
    (keyspaces::keys_go_from_one_keyspace_to_another, "keys_go_from_one_keyspace_to_another"),
    (
        keyspaces::a_move_follows_the_writes_under_way_and_breaks_watches,
        "a_move_follows_the_writes_under_way_and_breaks_watches",
    ),
    (
        keyspaces::that_nothing_is_moved_is_told_when_the_expiry_is_logged,
        "that_nothing_is_moved_is_told_when_the_expiry_is_logged",
    ),
    (
        keyspaces::a_moved_key_is_logged_there_before_it_is_removed_here,
        "a_moved_key_is_logged_there_before_it_is_removed_here",
    ),
    (
        memory::a_limit_below_what_the_keys_need_refuses_writes_at_once,
        "a_limit_below_what_the_keys_need_refuses_writes_at_once",
    ),
    (memory::a_policy_holds_from_the_moment_it_is_set, "a_policy_holds_from_the_moment_it_is_set"),
    (memory::info_counts_what_reads_find_and_what_goes, "info_counts_what_reads_find_and_what_goes"),
    (publishing::subscribers_get_messages_in_both_protocols, "subscribers_get_messages_in_both_protocols"),
    (publishing::a_resp2_subscriber_may_only_listen, "a_resp2_subscriber_may_only_listen"),
    (
        publishing::a_resp3_subscriber_may_do_everything_and_hears_itself,
        "a_resp3_subscriber_may_do_everything_and_hears_itself",
    ),
    (publishing::a_message_follows_the_writes_before_it, "a_message_follows_the_writes_before_it"),
    (publishing::a_subscriber_that_does_not_read_is_cut, "a_subscriber_that_does_not_read_is_cut"),
    (
        publishing::a_message_from_a_script_is_sent_when_it_is_applied,
        "a_message_from_a_script_is_sent_when_it_is_applied",
    ),
    (transactions::transactions_answer_as_redis_does, "transactions_answer_as_redis_does"),
    (transactions::a_transaction_stays_in_its_keyspace, "a_transaction_stays_in_its_keyspace"),
    (
        transactions::a_message_in_a_transaction_is_sent_by_exec_after_its_writes,
        "a_message_in_a_transaction_is_sent_by_exec_after_its_writes",
    ),
    (transactions::exec_depends_on_watched_keys, "exec_depends_on_watched_keys"),
    (
        transactions::flushall_in_a_transaction_is_done_in_its_place,
        "flushall_in_a_transaction_is_done_in_its_place",
    ),
    (
        transactions::a_stalled_keyspace_holds_writers_back_without_spinning,
        "a_stalled_keyspace_holds_writers_back_without_spinning",
    ),
    (
        transactions::a_stalled_transaction_still_depends_on_its_watched_keys,
        "a_stalled_transaction_still_depends_on_its_watched_keys",
    ),
    (
        transactions::a_flush_breaks_watches_on_the_keys_that_it_removes_only,
        "a_flush_breaks_watches_on_the_keys_that_it_removes_only",
    ),
    (entry::a_node_without_passwords_answers_as_redis_does, "a_node_without_passwords_answers_as_redis_does"),
    (
        entry::nothing_but_entry_is_allowed_before_authentication,
        "nothing_but_entry_is_allowed_before_authentication",
    ),
    (entry::quit_answers_what_is_pending_and_closes, "quit_answers_what_is_pending_and_closes"),
    (entry::replies_are_muted_as_asked, "replies_are_muted_as_asked"),
    (entry::a_command_split_anywhere_is_the_same_command, "a_command_split_anywhere_is_the_same_command"),
    (
        stalls::a_client_that_takes_nothing_is_cut_and_no_other,
        "a_client_that_takes_nothing_is_cut_and_no_other",
    ),
    (stalls::a_client_that_reads_slowly_stays, "a_client_that_reads_slowly_stays"),
    (
        stalls::a_client_that_has_read_everything_has_its_whole_time_again,
        "a_client_that_has_read_everything_has_its_whole_time_again",
    ),
    (
        slices::a_flush_is_freed_a_slice_in_each_turn_while_others_are_served,
        "a_flush_is_freed_a_slice_in_each_turn_while_others_are_served",
    ),
    (
        slices::keys_and_sort_go_on_in_slices_while_others_are_served,
        "keys_and_sort_go_on_in_slices_while_others_are_served",
    ),
    (
        slices::what_follows_a_long_read_is_answered_behind_it,
        "what_follows_a_long_read_is_answered_behind_it",
    ),
    (
        slices::a_long_read_of_a_client_that_leaves_is_given_up,
        "a_long_read_of_a_client_that_leaves_is_given_up",
    ),
    (slices::within_a_transaction_a_read_runs_whole, "within_a_transaction_a_read_runs_whole"),
    (
        slices::a_client_that_sends_no_more_gets_its_long_answer,
        "a_client_that_sends_no_more_gets_its_long_answer",
    ),
    (slices::a_flush_does_not_take_away_what_is_read, "a_flush_does_not_take_away_what_is_read"),
];

/// All that a client asks goes to another worker.
const AWAY: Shape = Shape { workers: 2, owner: |_| 1, partitions: |_| 1, client: |_| 0 };
/// Clients of both workers use the keyspaces of one.
const MIXED: Shape = Shape { workers: 2, owner: |_| 0, partitions: |_| 1, client: |number| number % 2 };
/// Both are spread.
const SPREAD: Shape =
    Shape { workers: 3, owner: |id| id % 3, partitions: |_| 1, client: |number| (number + 1) % 3 };

/// Those that need two keyspaces of one worker.
const TOGETHER: [&str; 4] = [
    "keys_go_from_one_keyspace_to_another",
    "a_move_follows_the_writes_under_way_and_breaks_watches",
    "a_moved_key_is_logged_there_before_it_is_removed_here",
    "that_nothing_is_moved_is_told_when_the_expiry_is_logged",
];

/// Two clients that go on at the same moment: which is first is not said when they are on two workers.
const CONCURRENT: &str = "a_stalled_transaction_still_depends_on_its_watched_keys";

fn hold(shape: Shape, except: &[&str]) {
    let mut broken = Vec::new();
    for (promise, name) in PROMISES.iter().filter(|(_, name)| !except.contains(name)) {
        SHAPE.set(shape);
        if std::panic::catch_unwind(promise).is_err() {
            broken.push(*name);
        }
    }
    SHAPE.set(ALONE);
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn every_promise_holds_when_all_keyspaces_are_another_workers() {
    hold(AWAY, &[]);
}

#[test]
fn every_promise_holds_when_clients_of_two_workers_meet() {
    hold(MIXED, &[CONCURRENT]);
}

#[test]
fn every_promise_holds_when_clients_and_keyspaces_are_spread() {
    hold(SPREAD, &[&TOGETHER[..], &[CONCURRENT]].concat());
}

/// A node of that shape; the thread's next nodes are of one worker again.
pub fn node(shape: Shape) -> Node {
    SHAPE.set(shape);
    let node = Node::new();
    SHAPE.set(ALONE);
    node
}

#[test]
fn exec_depends_on_watched_keys_of_every_worker() {
    for watched in 0..3 {
        for (change, expected) in [("SET k 2", "*-1\r\n"), ("SET other 2", "*1\r\n+OK\r\n")] {
            for runs in 0..3 {
                let mut node = node(SPREAD);
                let (client, other) = (node.client(), node.client());
                node.ask(client, "SELECT 0\r\nWATCH k\r\nSELECT 1\r\nWATCH k\r\nSELECT 2\r\nWATCH k");
                node.ask(other, &format!("SELECT {watched}\r\n{change}"));
                node.ask(client, &format!("SELECT {runs}\r\nMULTI\r\nSET x 1"));
                assert_eq!(node.ask(client, "EXEC"), expected, "{change} in {watched}, EXEC in {runs}");
                // The watches are gone with it.
                assert!((0..3).all(|number| node.nth(number).watched_keys().is_empty()));
            }
        }
    }
}

#[test]
fn a_client_that_waits_at_another_worker_and_leaves_takes_nothing() {
    for between in [0, 1] {
        let mut node = node(AWAY);
        let (leaving, other) = (node.client(), node.client());
        node.feed(leaving, "BLPOP list 0\r\n");
        if between == 1 {
            node.settle();
        } else {
            // It is on its way still, and must not begin to wait.
            node.turn();
        }
        node.of(leaving).disconnect(leaving.0);
        node.settle();
        node.table(other, &[("RPUSH list x", ":1\r\n"), ("LPOP list", "$1\r\nx\r\n")]);
    }
}

#[test]
fn a_script_is_known_to_every_worker_once_it_is_loaded() {
    let mut node = node(SPREAD);
    let (loading, other) = (node.client(), node.client());
    let id = node.ask(loading, "SCRIPT LOAD \"return 1\"").lines().nth(1).map(String::from).unwrap();
    for db in ["SELECT 0", "SELECT 1", "SELECT 2"] {
        node.ask(other, db);
        assert_eq!(node.ask(other, &format!("SCRIPT EXISTS {id}")), "*1\r\n:1\r\n");
    }
}

#[test]
fn settings_that_are_changed_at_the_same_time_are_the_same_everywhere_afterwards() {
    let mut node = node(SPREAD);
    let clients = [node.client(), node.client(), node.client()];
    for (number, client) in clients.iter().enumerate() {
        node.feed(*client, &format!("CONFIG SET timeout 1{number}\r\n"));
    }
    node.settle();
    let told: Vec<String> = clients.iter().map(|client| node.read(*client)).collect();
    assert_eq!(told, ["+OK\r\n"; 3]);
    let values: Vec<String> = clients.iter().map(|client| node.ask(*client, "CONFIG GET timeout")).collect();
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
}

#[test]
fn the_limit_on_clients_is_the_nodes() {
    let mut node = node(SPREAD);
    let client = node.client();
    assert_eq!(node.ask(client, "CONFIG SET maxclients 3"), "+OK\r\n");
    assert!(node.connect(1).is_some());
    assert!(node.connect(2).is_some());
    assert!((0..3).all(|worker| node.connect(worker).is_none()));
    assert!(node.ask(client, "INFO stats").contains("rejected_connections:3"));
}

#[test]
fn keys_stay_on_their_worker() {
    let mut node = node(SPREAD);
    let client = node.client();
    let apart = "-ERR these databases belong to different workers of this node";
    node.ask(client, "SET a 1");
    for command in ["MOVE a 1", "COPY a b DB 2"] {
        assert!(node.ask(client, command).starts_with(apart), "{command}");
    }
    node.table(client, &[("COPY a b DB 3", ":1\r\n"), ("MOVE a 6", ":1\r\n"), ("MOVE a 6", ":0\r\n")]);
}

#[test]
fn keyspaces_are_exchanged_with_one_worker_only() {
    let mut node = node(SPREAD);
    let (client, other) = (node.client(), node.client());
    let refused = "-ERR SWAPDB is offered with one worker only (storage.workers = 1)\r\n";
    node.ask(client, "SET a 1");
    node.table(
        client,
        &[
            ("SWAPDB 0 1", refused),
            ("SWAPDB 0 3", refused),
            ("SWAPDB 2 2", "+OK\r\n"),
            ("SWAPDB 0 99", "-ERR DB index is out of range\r\n"),
            ("GET a", "$1\r\n1\r\n"),
        ],
    );
    assert_eq!(node.ask(other, "GET a"), "$1\r\n1\r\n");
}

#[test]
fn a_limit_on_memory_is_shared_out_to_all_workers() {
    let mut node = node(SPREAD);
    let client = node.client();
    node.ask(client, "CONFIG SET maxmemory 3000");
    let budgets = |node: &mut Node| [0, 1, 2].map(|number| node.nth(number).budget(0));
    assert_eq!(budgets(&mut node), [Some(1000); 3]);
    assert_eq!(node.ask(client, "CONFIG GET maxmemory"), "*2\r\n$9\r\nmaxmemory\r\n$4\r\n3000\r\n");
    // 0 would be no limit.
    node.ask(client, "CONFIG SET maxmemory 2");
    assert_eq!(budgets(&mut node), [Some(1); 3]);
    node.ask(client, "CONFIG SET maxmemory 0");
    assert_eq!(budgets(&mut node), [None; 3]);
}

#[test]
fn a_transaction_for_another_worker_is_refused_by_exec_when_there_is_no_memory() {
    let mut node = node(AWAY);
    let (client, other) = (node.client(), node.client());
    let aborted = "-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.\r\n";
    node.table(client, &[("SET x old", "+OK\r\n"), ("MULTI", "+OK\r\n"), ("GET x", "+QUEUED\r\n")]);
    node.ask(client, "SET x new");
    node.ask(other, "CONFIG SET maxmemory 1");
    node.table(
        client,
        &[
            ("EXEC", aborted),
            ("GET x", "$3\r\nold\r\n"),
            ("MULTI", "+OK\r\n"),
            ("GET x", "+QUEUED\r\n"),
            ("DEL x", "+QUEUED\r\n"),
            ("EXEC", "*2\r\n$3\r\nold\r\n:1\r\n"),
        ],
    );
}

#[test]
fn a_connection_has_a_bounded_number_of_commands_at_other_workers() {
    let mut node = node(AWAY);
    let client = node.client();
    node.feed(client, &"INCR n\r\n".repeat(1000));
    assert!(!node.of(client).wants_input(client.0), "it is held");
    (0..4).for_each(|_| node.settle());
    assert_eq!(node.read(client).lines().last(), Some(":1000"));
}
