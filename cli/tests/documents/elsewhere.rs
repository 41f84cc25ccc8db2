//! Commands of pages that cannot run in a scratch directory, each with the test that covers it.
//!
//! Commands of Kiln's own programs and of cargo are still parsed: they run with `--help` after all their flags.

/// Only the flags are checked: the command takes minutes, and is a measurement.
pub const PARSED: &str = "";

/// A page, its command after expansion by the shell, and the test.
pub type Elsewhere = (&'static str, &'static str, &'static str);

pub const ELSEWHERE: &[Elsewhere] = &[
    (
        "coordinator/README.md",
        "kiln-coordinator --farm-dir /etc/kiln --listen 10.0.0.1:8980 --data-dir /var/lib/kiln \
         --replicas redis://:PASSWORD@journal:6379 --s3 s3://builds/kiln",
        "a_build_survives_a_leader_that_is_killed",
    ),
    (
        "cli/README.md",
        "kiln login https://farm.example:8980 --name team --ca team.pem",
        "who_has_logged_in_needs_no_flags_and_a_wrong_token_is_not_kept",
    ),
    (
        "cli/README.md",
        "rustup target add x86_64-pc-windows-gnu",
        "the_client_for_windows_builds_what_the_one_for_linux_does",
    ),
    (
        "cli/README.md",
        "cargo build --release -p kiln-cli --no-default-features --target x86_64-pc-windows-gnu",
        "the_client_for_windows_builds_what_the_one_for_linux_does",
    ),
    ("cli/README.md", "kiln build services/*", "projects_are_built_by_one_command_each_into_its_own_directory"),
    (
        "cli/README.md",
        "kiln plan --affected-by main services/*",
        "only_what_changed_since_a_commit_is_planned_and_built",
    ),
    (
        "cli/README.md",
        "kiln build --affected-by main --fail-fast services/*",
        "what_fails_stops_no_other_unless_that_is_wanted",
    ),
    ("cli/README.md", "kiln shell latest compile", "after_a_failed_compile_one_mends_a_file_and_compiles"),
    ("cli/README.md", "kiln run latest compile -- ls -l src", "a_command_has_three_streams_and_passes_its_end_on"),
    ("cli/README.md", "kiln build --shell-on-failure", "a_build_that_fails_can_end_in_a_shell"),
    (
        "cli/README.md",
        "kiln build --push registry.example/team/shop:1.4.2",
        "a_push_sends_what_is_missing_and_moves_no_tag_unasked",
    ),
    (
        "cli/README.md",
        "kiln build --push shop=registry.example/shop --push tool=registry.example/tool",
        "a_push_sends_what_is_missing_and_moves_no_tag_unasked",
    ),
    ("cli/README.md", "kiln build --load", "docker_runs_what_was_loaded_and_what_it_pulled"),
    (
        "cli/README.md",
        "kiln docker build -t registry.example/team/shop:1.4 --push .",
        "a_pushed_image_is_an_index_with_attestations_and_what_is_written_about_it_is_true",
    ),
    ("cli/README.md", "kiln docker build -t shop:1.4 --load .", "images_go_into_archives_layouts_and_docker"),
    ("cli/README.md", "kiln build --image --load", "a_project_without_configuration_becomes_an_image_that_runs"),
    ("cli/README.md", "kiln build --image=alpine:3.20", "a_project_without_configuration_becomes_an_image_that_runs"),
    (
        "cli/README.md",
        "kiln build --push s3://BUCKET/releases",
        "a_bucket_holds_an_artifact_whole_and_never_another_under_its_id",
    ),
    (
        "cli/README.md",
        "kiln build --push https://USER:PASSWORD@nexus.example/repository/raw",
        "a_repository_takes_files_by_put_whole_and_in_order_and_says_why_it_does_not",
    ),
    (
        "cli/README.md",
        "kiln build --platform linux/amd64,linux/arm64",
        "each_platform_is_built_on_a_native_worker_though_an_emulated_one_is_allowed",
    ),
    (
        "cli/README.md",
        "bazel build --remote_executor=grpc://farm.example:8980 //...",
        "bazel_builds_and_tests_on_the_farm_and_from_an_emptied_output_base_everything_is_a_hit",
    ),
    (
        "worker/README.md",
        "rustup target add aarch64-unknown-linux-gnu aarch64-unknown-linux-musl",
        "an_emulated_worker_is_used_only_where_that_is_allowed_and_the_result_says_so",
    ),
    (
        "worker/README.md",
        "mmdebstrap --arch=arm64 --variant=minbase --include=gcc,libc6-dev,make bookworm /srv/arm64",
        "an_emulated_worker_is_used_only_where_that_is_allowed_and_the_result_says_so",
    ),
    (
        "worker/README.md",
        "kiln-worker --coordinator http://farm:8980 --name emulated --state-dir /var/lib/kiln-arm64 --root /srv/arm64",
        "an_emulated_worker_is_used_only_where_that_is_allowed_and_the_result_says_so",
    ),
    (
        "deploy/README.md",
        "useradd --system --home-dir /var/lib/kiln kiln",
        "units_are_sound_and_no_more_exposed_than_they_say",
    ),
    ("deploy/README.md", "chown -R kiln /etc/kiln", "units_are_sound_and_no_more_exposed_than_they_say"),
    (
        "deploy/README.md",
        "systemctl enable --now kiln-coordinator",
        "units_are_sound_and_no_more_exposed_than_they_say",
    ),
    ("deploy/README.md", "systemctl enable --now kiln-worker", "units_are_sound_and_no_more_exposed_than_they_say"),
    (
        "coordinator/README.md",
        "kiln-coordinator --config /etc/kiln/coordinator.toml --check-config",
        "what_a_configuration_names_is_checked_without_starting",
    ),
    (
        "coordinator/README.md",
        "kiln-coordinator --config /etc/kiln/coordinator.toml",
        "sighup_reads_the_file_again_and_an_invalid_one_changes_nothing",
    ),
    (
        "worker/README.md",
        "kiln-worker --config /etc/kiln/worker.toml --check-config",
        "what_a_configuration_names_is_checked_without_starting",
    ),
    (
        "worker/README.md",
        "kiln-worker --config /etc/kiln/worker.toml",
        "sighup_registers_the_worker_with_its_new_labels_and_names_what_needs_a_restart",
    ),
    ("deploy/packages/README.md", "kiln build", "the_repository_has_a_plan_of_kiln_itself_for_both_architectures"),
    (
        "deploy/packages/README.md",
        "cargo build --profile client --no-default-features -p kiln-cli --target x86_64-pc-windows-gnu",
        "the_client_for_windows_builds_what_the_one_for_linux_does",
    ),
    (
        "deploy/packages/README.md",
        "cargo zigbuild --profile client --no-default-features -p kiln-cli --target aarch64-apple-darwin --config target.aarch64-apple-darwin.rustflags=['-Clink-arg=-Wl,-dead_strip_dylibs']",
        "the_client_for_macos_needs_no_framework_of_apples",
    ),
    (
        "deploy/README.md",
        "kubectl apply -k deploy/kubernetes/one",
        "kubernetes_objects_fit_their_schemas_and_each_other",
    ),
    (
        "deploy/README.md",
        "kubectl apply -k deploy/kubernetes/keda",
        "kubernetes_objects_fit_their_schemas_and_each_other",
    ),
    ("deploy/README.md", "kubectl apply -f -", "kubernetes_objects_fit_their_schemas_and_each_other"),
    (
        "deploy/helm/kiln/README.md",
        "kubectl label namespace kiln pod-security.kubernetes.io/enforce=privileged",
        "the_commands_of_the_notes_make_every_secret_that_the_pods_need",
    ),
    (
        "deploy/ci/README.md",
        "kiln-coordinator --farm-dir /etc/kiln --data-dir /var/lib/kiln \
         --jwks https://token.actions.githubusercontent.com/.well-known/jwks \
         --jwt-issuer https://token.actions.githubusercontent.com --jwt-audience https://farm.example \
         --jwt-rules deploy/ci/github/rules.toml",
        "a_job_on_github_builds_by_the_token_that_github_signs_and_gives_the_ids_of_its_artifacts",
    ),
    (
        "deploy/ci/README.md",
        "kiln-coordinator --farm-dir /etc/kiln --data-dir /var/lib/kiln \
         --jwks https://gitlab.example/oauth/discovery/keys \
         --jwt-issuer https://gitlab.example --jwt-audience https://farm.example \
         --jwt-rules deploy/ci/gitlab/rules.toml",
        "a_job_on_gitlab_builds_by_the_token_that_gitlab_signs_in_any_shell",
    ),
    ("benches/README.md", "kiln-bench execute blob build", PARSED),
    ("benches/README.md", "kiln-bench load", "every_case_does_what_was_asked_for_without_an_error"),
    (
        "benches/README.md",
        "kiln-bench load --target grpc://farm:8980 --instance main --only upload,execute-noop --json before.json",
        "every_case_does_what_was_asked_for_without_an_error",
    ),
    (
        "benches/README.md",
        "kiln-bench load --coordinator-arg=--store-size --coordinator-arg=20GiB",
        "every_case_does_what_was_asked_for_without_an_error",
    ),
    (
        "benches/README.md",
        "kiln-bench compare before.json after.json",
        "every_case_does_what_was_asked_for_without_an_error",
    ),
    (
        "benches/README.md",
        "kiln-bench layer",
        "a_layer_is_measured_cold_and_warm_and_json_may_be_all_of_standard_output",
    ),
    ("benches/README.md", "kiln-bench dockerfile --base DIR --docker", PARSED),
    ("benches/README.md", "kiln-bench calls", PARSED),
    ("benches/README.md", "kiln-bench scheduler", PARSED),
    ("benches/README.md", "kiln-bench workers", PARSED),
    ("benches/README.md", "kiln-bench spread", PARSED),
    ("benches/README.md", "kiln-bench cost", "what_tls_and_telemetry_cost_is_measured_on_farms_that_have_them"),
    ("benches/README.md", "kiln-bench crowd --tls", "a_crowd_is_all_there_and_sees_every_line"),
    ("benches/README.md", "kiln-bench scheduler", "every_action_is_assigned_to_a_farm_in_memory_and_completed"),
    ("benches/README.md", "kiln-bench workers", "each_action_is_run_once_by_one_of_the_connected_workers"),
    ("benches/README.md", "kiln-bench pages", "every_open_page_gets_every_line"),
    ("benches/README.md", "kiln-bench proof", "proof_is_measured_alone_in_builds_and_beside_the_hashing_of_an_image"),
];

/// Blocks that their own tests run completely: a page, words of the block, and the test.
pub const BLOCKS: &[Elsewhere] = &[
    (
        "cli/README.md",
        "kiln farm keys > farm.pem",
        "an_image_in_a_registry_is_verified_and_a_tampered_registry_is_noticed",
    ),
    ("cli/README.md", "kiln verify kiln-out/shop --key farm.pem", "what_was_built_is_verified_without_the_farm"),
    ("coordinator/README.md", "aws kms sign", "a_command_signs_in_place_of_a_file_and_is_named_when_it_fails"),
    (
        "cli/README.md",
        "kiln up --listen 127.0.0.1:8980",
        "the_first_chapter_leads_from_nothing_to_an_image_for_two_architectures_in_a_registry",
    ),
    (
        "cli/README.md",
        "git init --quiet",
        "the_first_chapter_leads_from_nothing_to_an_image_for_two_architectures_in_a_registry",
    ),
    (
        "cli/README.md",
        "sed -i 's/hello from/greetings from/' hello.c",
        "the_first_chapter_leads_from_nothing_to_an_image_for_two_architectures_in_a_registry",
    ),
    (
        "cli/README.md",
        "cat > kiln.toml",
        "the_first_chapter_leads_from_nothing_to_an_image_for_two_architectures_in_a_registry",
    ),
    (
        "cli/README.md",
        "localhost:5000/hello:1.0",
        "the_first_chapter_leads_from_nothing_to_an_image_for_two_architectures_in_a_registry",
    ),
    (
        "cli/README.md",
        "kiln fetch hello-1.0-linux-arm64",
        "the_first_chapter_leads_from_nothing_to_an_image_for_two_architectures_in_a_registry",
    ),
    (
        "deploy/compose.md",
        "docker-compose up",
        "compose_brings_a_farm_from_nothing_to_a_finished_build_by_the_commands_on_its_page",
    ),
    (
        "deploy/replicas.md",
        "docker-compose up",
        "compose_with_several_coordinators_builds_through_the_balancer_and_after_it_has_lost_the_one_that_leads",
    ),
    ("deploy/tools.md", "export KILN_FARM", "bazel_runs_on_the_farm_and_shares_what_it_runs_itself"),
    ("deploy/tools.md", "kiln cache env bazel", "bazel_shares_what_it_runs_over_tls"),
    ("deploy/tools.md", "bazel build --config", "bazel_runs_on_the_farm_and_shares_what_it_runs_itself"),
    ("deploy/tools.md", "kiln cache env gradle", "gradle_trusts_the_farms_authority_and_takes_outputs_from_it"),
    ("deploy/tools.md", "kiln cache env go", "go_takes_what_another_machine_compiled"),
    ("deploy/tools.md", "kiln cache env turbo", "turborepo_replays_from_the_farm"),
    ("deploy/tools.md", "kiln cache env sccache", "sccache_takes_objects_from_the_farm_over_tls"),
];
