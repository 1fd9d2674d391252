//! Who gave a command.

use bootstrap::testing::Sandbox;

use super::process::Process;

#[test]
fn a_command_is_logged_with_the_name_of_its_key_and_not_the_key() {
    let sandbox = Sandbox::new();
    let entry = format!("ops:admin:{}", access::KeyHash::of("hunter2"));
    let process = Process::start(&sandbox, &[("API_KEYS", &entry)]);
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for command in ["cancel", "retry"] {
        let path = format!("/tasks/{id}/{command}");
        assert_eq!(process.status_of("POST", &path, "hunter2"), 404);
    }
    // Lines about a request that has a trace carry the name beside the trace, whoever writes them.
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let headers =
        format!("Authorization: Bearer hunter2\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\n");
    let path = format!("/tasks/{id}/cancel");
    assert_eq!(process.status_to("POST", &path, &headers), 404);
    process.signal("TERM");
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{log}");
    for command in ["cancel", "retry"] {
        let mut lines = log.lines().filter(|line| line.contains("task.commanded"));
        let line = lines.find(|line| line.contains(command));
        let line = line.unwrap_or_else(|| panic!("no {command} in {log}"));
        assert!(line.contains(id) && line.contains("ops"), "{line}");
    }
    let line = log.lines().find(|line| line.contains(trace));
    let line = line.unwrap_or_else(|| panic!("no {trace} in {log}"));
    let (span, _) = line.split_once("}:").expect("the span stands first");
    assert!(span.contains("api_key=\"ops\""), "{line}");
    assert!(!log.contains("hunter2"), "{log}");
}
