use std::io::Write as _;

use super::*;

fn read<S: Settings>(pairs: &[(&str, &str)]) -> Result<S, Mistakes> {
    let mut reader = Reader::new(Source::of_pairs(pairs));
    let read = S::read(&mut reader);
    reader.finish(read)
}

/// Which settings are named as wrong.
fn names<S: Settings>(pairs: &[(&str, &str)]) -> Vec<String> {
    match read::<S>(pairs) {
        Ok(_) => Vec::new(),
        Err(Mistakes(mistakes)) => mistakes.into_iter().map(|mistake| mistake.name).collect(),
    }
}

#[test]
fn the_contracts_defaults_are_the_defaults() {
    let server = read::<ServerSettings>(&[]).expect("defaults are right");
    assert_eq!(
        (server.http.host.as_str(), server.http.port),
        ("0.0.0.0", 3_000)
    );
    assert_eq!(
        server.database.url,
        "postgres://task:task@localhost:5432/taskdb"
    );
    assert_eq!(server.redis.url, "redis://localhost:6379");
    assert_eq!(server.kafka.brokers, ["localhost:9092"]);
    assert_eq!(server.kafka.partitions, 4);
    assert_eq!(server.http.max_body, 262_144);
    let worker = read::<WorkerSettings>(&[]).expect("defaults are right");
    assert_eq!(worker.kafka.group, "task-processor-group");
    assert_eq!(worker.work.max_result_bytes, 262_144);
    assert_eq!(worker.work.task_timeout, Duration::from_secs(60));
    assert_eq!(worker.http.host, "0.0.0.0");
    let standalone = read::<StandaloneSettings>(&[]).expect("defaults are right");
    assert_eq!(standalone.database.url, "sqlite://task-processor.db");
    assert_eq!(
        (standalone.http.host.as_str(), standalone.http.port),
        ("127.0.0.1", 3_000)
    );
}

#[test]
fn every_declared_default_is_accepted_as_a_value() {
    fn check<S: Settings + PartialEq + fmt::Debug>() {
        let mut reader = Reader::new(Source::default());
        let defaults = S::read(&mut reader);
        let declared = reader.into_declared();
        let pairs: Vec<(&str, &str)> = declared
            .iter()
            .map(|declared| (declared.name, declared.default.as_str()))
            .collect();
        assert_eq!(read::<S>(&pairs).as_ref(), Ok(&defaults));
        let mut names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), pairs.len(), "a name is declared twice");
    }
    check::<ServerSettings>();
    check::<WorkerSettings>();
    check::<StandaloneSettings>();
    check::<MigrateSettings>();
}

#[test]
fn one_url_wins_over_its_parts() {
    let server = read::<ServerSettings>(&[
        ("DATABASE_URL", "postgresql://a:b@db/x"),
        ("DATABASE_HOST", "elsewhere"),
        ("REDIS_URL", "redis://cache:1"),
        ("REDIS_HOST", "elsewhere"),
    ])
    .expect("all right");
    assert_eq!(server.database.url, "postgresql://a:b@db/x");
    assert_eq!(server.redis.url, "redis://cache:1");
}

#[test]
fn an_empty_value_is_not_set() {
    let server = read::<ServerSettings>(&[("PORT", ""), ("DATABASE_URL", "")]).expect("all right");
    assert_eq!(server.http.port, 3_000);
}

#[test]
fn brokers_are_a_list() {
    let server =
        read::<ServerSettings>(&[("KAFKA_BROKERS", "a:1, b:2,,[::1]:3")]).expect("all right");
    assert_eq!(server.kafka.brokers, ["a:1", "b:2", "[::1]:3"]);
}

#[test]
fn wrong_values_are_refused_by_name() {
    for (name, value) in [
        ("PORT", "abc"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("HOST", "http://here"),
        ("HOST", "localhost:80"),
        ("MAX_BODY", "256KB"),
        ("MAX_BODY", "1"),
        ("SUBMIT_BYTES", "4MiB"),
        ("SUBMIT_PATIENCE", "0"),
        ("MAX_ATTEMPTS", "0"),
        ("MAX_ATTEMPTS", "101"),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "mysql://u:p@h/d"),
        ("DATABASE_URL", "postgres://u:p@h"),
        ("DATABASE_URL", "sqlite://tasks.db"),
        ("DATABASE_URL", "postgres://h/d?sslmode=yes"),
        ("DATABASE_URL", "postgres://h/d?sslrootcert=/nowhere/ca.pem"),
        ("DATABASE_URL", "postgres://h/d?sslcert=/nowhere/our.pem"),
        ("DATABASE_URL", "postgres://h/d?sslkey=/nowhere/our.key"),
        ("DATABASE_SSL_MODE", "allow"),
        ("DATABASE_SSL_ROOT_CERT", "/nowhere/ca.pem"),
        ("DATABASE_URL", "postgres://h/d?pool=5"),
        ("DATABASE_URL", "postgres://h/d?port=x"),
        ("DATABASE_HOST", "a b"),
        ("DATABASE_PORT", "0"),
        ("DATABASE_POOL", "0"),
        ("REDIS_URL", "http://cache"),
        ("REDIS_URL", "rediss://cache#insecure"),
        ("REDIS_URL", "rediss://"),
        ("REDIS_TLS", "yes"),
        ("REDIS_TLS_CA_CERT_FILE", "/nowhere/ca.pem"),
        ("REDIS_URL", "redis://cache/first"),
        ("REDIS_URL", "redis://cache/-1"),
        ("REDIS_URL", "redis://cache/0/1"),
        ("REDIS_PORT", "x"),
        ("KAFKA_BROKERS", "here"),
        ("KAFKA_BROKERS", "here:x"),
        ("KAFKA_BROKERS", ","),
        ("KAFKA_CLIENT", "kafkajs"),
        ("KAFKA_PARTITIONS", "0"),
        ("KAFKA_SECURITY_PROTOCOL", "tls"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("STARTUP_TIMEOUT", "30"),
        ("STARTUP_TIMEOUT", "500h"),
        ("DRAIN_DELAY", "a while"),
        ("MIGRATE", "yes"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("RUST_LOG", "a=b=c"),
    ] {
        assert_eq!(
            names::<ServerSettings>(&[(name, value)]),
            [name],
            "{name}={value}"
        );
    }
    for (name, value) in [
        ("TASK_TIMEOUT", "60"),
        ("MAX_RESULT", "0"),
        ("CONCURRENCY", "0"),
        ("BATCH", "5001"),
        ("WORKER_PORT", "x"),
        ("KAFKA_GROUP_ID", "  "),
        ("LEASE", "1s"),
        ("RETENTION", "24h"),
        ("RETENTION", "1s"),
        ("RETRY_CAP", "1ms"),
    ] {
        assert_eq!(
            names::<WorkerSettings>(&[(name, value)]),
            [name],
            "{name}={value}"
        );
    }
    for (name, value) in [
        ("DATABASE_URL", "sqlite::memory:"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "tasks.db"),
        ("CACHE_BYTES", "lots"),
    ] {
        assert_eq!(
            names::<StandaloneSettings>(&[(name, value)]),
            [name],
            "{name}={value}"
        );
    }
}

#[test]
fn parameters_of_an_address_are_understood_or_refused_without_their_values() {
    for url in [
        "postgres://u:p@h/d?sslmode=prefer&application_name=a&options=-c%20a%3Db",
        "postgres://u:p@h/d?host=/run/pg&statement-cache-capacity=10",
    ] {
        let server = read::<ServerSettings>(&[("DATABASE_URL", url)]).expect("all right");
        assert_eq!(server.database.url, url);
    }
    for url in ["redis://cache", "redis://cache/", "redis://cache:1/15"] {
        let server = read::<ServerSettings>(&[("REDIS_URL", url)]).expect("all right");
        assert_eq!(server.redis.url, url);
    }
    let refused = |value: &str| {
        read::<ServerSettings>(&[("DATABASE_URL", value)])
            .expect_err("is refused")
            .to_string()
    };
    let unknown = refused("postgres://u:p@h/d?pasword=hunter2");
    assert!(
        unknown.contains("pasword") && !unknown.contains("hunter2"),
        "{unknown}"
    );
    let mode = refused("postgres://u:p@h/d?sslmode=hunter2");
    assert!(
        mode.contains("verify-full") && !mode.contains("hunter2"),
        "{mode}"
    );
}

#[test]
fn a_broker_that_is_none_is_named() {
    let mistakes = read::<ServerSettings>(&[("KAFKA_BROKERS", "a:1,b")]).expect_err("is refused");
    assert_eq!(
        mistakes.0[0].reason,
        "must be host:port, separated by commas (of which \"b\" is none), but is \"a:1,b\""
    );
}

#[test]
fn contradictions_are_refused() {
    type Pairs = &'static [(&'static str, &'static str)];
    let cases: [(Pairs, &[&str]); 4] = [
        (&[("WORKER_INDEX", "0")], &["WORKER_INDEX and WORKER_COUNT"]),
        (
            &[
                ("KAFKA_CLIENT", "kafka-rust"),
                ("WORKER_INDEX", "2"),
                ("WORKER_COUNT", "2"),
            ],
            &["WORKER_INDEX"],
        ),
        (
            &[("IN_FLIGHT", "100"), ("BATCH", "200"), ("CONCURRENCY", "1")],
            &["BATCH"],
        ),
        (
            &[
                ("IN_FLIGHT", "600"),
                ("CONCURRENCY", "700"),
                ("BATCH", "600"),
            ],
            &["CONCURRENCY"],
        ),
    ];
    for (pairs, expected) in cases {
        assert_eq!(names::<WorkerSettings>(pairs), expected, "{pairs:?}");
    }
    let shared = [
        ("KAFKA_CLIENT", "kafka-rust"),
        ("WORKER_INDEX", "1"),
        ("WORKER_COUNT", "2"),
    ];
    let worker = read::<WorkerSettings>(&shared).expect("all right");
    assert_eq!(worker.kafka.share, StaticShare { index: 1, count: 2 });
}

#[test]
fn the_embedded_program_names_the_distributed_ones() {
    for (name, value) in [
        ("DATABASE_URL", "postgres://task:task@localhost/taskdb"),
        ("DATABASE_HOST", "localhost"),
        ("REDIS_HOST", "localhost"),
        ("REDIS_URL", "redis://localhost"),
        ("KAFKA_BROKERS", "localhost:9092"),
        ("KAFKA_CLIENT", "auto"),
    ] {
        let mistakes = read::<StandaloneSettings>(&[(name, value)]).expect_err("is refused");
        assert_eq!(mistakes.0.len(), 1, "{name}");
        assert_eq!(mistakes.0[0].name, name);
        assert!(
            mistakes.0[0].reason.contains("task-processor-server"),
            "{mistakes}"
        );
    }
    let mistakes =
        read::<WorkerSettings>(&[("DATABASE_URL", "sqlite://a.db")]).expect_err("is refused");
    assert!(
        mistakes
            .to_string()
            .contains("task-processor is the program for SQLite"),
        "{mistakes}"
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let wrong = [
        ("PORT", "abc"),
        ("DATABASE_PORT", "0"),
        ("KAFKA_CLIENT", "fast"),
        ("STARTUP_TIMEOUT", "soon"),
    ];
    let mistakes = read::<ServerSettings>(&wrong).expect_err("is refused");
    assert_eq!(
        mistakes.to_string(),
        "4 settings are wrong:\n  \
         PORT must be a whole number from 0 to 65535, but is \"abc\"\n  \
         DATABASE_PORT must be a whole number from 1 to 65535, but is \"0\"\n  \
         KAFKA_CLIENT must be one of auto, kafka-rust, rdkafka, but is \"fast\"\n  \
         STARTUP_TIMEOUT must be a duration like 500ms, 30s, 5m or 0, but is \"soon\""
    );
}

#[test]
fn secrets_are_never_shown() {
    let mistakes = read::<ServerSettings>(&[
        ("DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("REDIS_URL", "http://:hunter2@cache"),
    ])
    .expect_err("is refused");
    assert!(!mistakes.to_string().contains("hunter2"), "{mistakes}");
    let settings = read::<ServerSettings>(&[
        ("DATABASE_PASSWORD", "hunter2"),
        ("REDIS_URL", "redis://:hunter2@cache"),
    ])
    .expect("all right");
    assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
}

/// Found by fuzzing: an address pasted twice has its password where the name of a parameter should be.
#[test]
fn an_address_pasted_twice_does_not_show_its_password() {
    let twice = "postgres://u:hunter2@db/tasks?//u:hunter2@db/tasks?sslmode=require";
    let mistakes = read::<ServerSettings>(&[("DATABASE_URL", twice)]).expect_err("is refused");
    let text = mistakes.to_string();
    assert!(
        text.contains("has a parameter, which is not known"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}

/// Found by fuzzing: the parser of directives panics at these.
#[test]
fn log_directives_of_letters_that_are_not_ascii_are_refused() {
    let wrong = [("RUST_LOG", "\r\n1\u{fffd}=27.0.0.1")];
    let mistakes = read::<ServerSettings>(&wrong).expect_err("is refused");
    assert!(mistakes.to_string().contains("RUST_LOG"), "{mistakes}");
}

fn with_file(text: &[u8], environment: &[(&str, &str)]) -> Source {
    let directory = std::env::temp_dir().join(format!(
        "task-processor-settings-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join(".env");
    std::fs::File::create(&path)
        .and_then(|mut file| file.write_all(text))
        .expect("a file");
    let mut source = Source::of_pairs(environment);
    source.add_file(&path);
    std::fs::remove_dir_all(&directory).expect("it goes away");
    source
}

#[test]
fn the_environment_wins_over_the_file() {
    let source = with_file(b"# ours\nPORT=4000\nHOST=127.0.0.1\n", &[("PORT", "5000")]);
    let mut reader = Reader::new(source);
    let server = ServerSettings::read(&mut reader);
    assert_eq!(server.http.port, 5_000);
    assert_eq!(server.http.host, "127.0.0.1");
}

#[test]
fn a_line_of_the_file_that_cannot_be_read_is_a_mistake_without_its_value() {
    let source = with_file(b"PORT=4000\nDATABASE_PASSWORD='hunter2\n", &[]);
    let mut reader = Reader::new(source);
    let server = ServerSettings::read(&mut reader);
    let mistakes = reader.finish(server).expect_err("is refused");
    assert_eq!(mistakes.0[0].name, ".env");
    assert!(
        mistakes.to_string().contains("DATABASE_PASSWORD"),
        "{mistakes}"
    );
    assert!(!mistakes.to_string().contains("hunter2"), "{mistakes}");
    assert!(mistakes.to_string().contains("line 2"), "{mistakes}");
}

#[test]
fn a_line_of_the_file_that_is_no_assignment_is_named_by_its_number() {
    let source = with_file(b"# ours\n\nhunter2\nPORT=4000\nhunter2\n", &[]);
    let mut reader = Reader::new(source);
    let server = ServerSettings::read(&mut reader);
    let mistakes = reader.finish(server).expect_err("is refused");
    let reasons: Vec<&str> = mistakes
        .0
        .iter()
        .map(|mistake| mistake.reason.as_str())
        .collect();
    assert_eq!(
        reasons,
        ["is not NAME=value in line 3", "is not NAME=value in line 5"]
    );
}

#[test]
fn help_tells_every_setting_with_default_unit_and_meaning() {
    fn check<S: Settings>() {
        let text = help::<S>("program", "What it is.");
        let mut reader = Reader::new(Source::default());
        let _defaults = S::read(&mut reader);
        for declared in reader.into_declared() {
            let line = format!(
                "  {}={}  ({})\n",
                declared.name, declared.default, declared.unit
            );
            assert!(text.contains(&line), "{line}");
            assert!(
                !declared.unit.is_empty() && !declared.meaning.is_empty(),
                "{line}"
            );
        }
    }
    check::<ServerSettings>();
    check::<WorkerSettings>();
    check::<StandaloneSettings>();
    check::<MigrateSettings>();
}

#[test]
fn keys_are_read_or_refused_by_name_and_never_shown() {
    let hash = ::access::KeyHash::of("hunter2").to_string();
    let entry = format!("ci:submit+read:{hash}");
    let server = read::<ServerSettings>(&[("API_KEYS", &entry)]).expect("all right");
    assert!(server.http.access.keys.recognise("hunter2").is_some());
    assert!(!format!("{server:?}").contains(&hash[..8]), "{server:?}");
    let worker = read::<WorkerSettings>(&[("API_KEYS", &entry)]).expect("all right");
    assert_eq!(worker.http.access.keys.len(), 1);
    for wrong in [
        "hunter2",
        "ci:read:hunter2",
        "ci:write:hunter2",
        ",",
        "# none",
    ] {
        let mistakes = read::<ServerSettings>(&[("API_KEYS", wrong)]).expect_err("is refused");
        assert_eq!(mistakes.0[0].name, "API_KEYS", "{wrong}");
        assert!(!mistakes.to_string().contains("hunter2"), "{mistakes}");
    }
    assert_eq!(
        names::<ServerSettings>(&[("API_KEYS_FILE", "/nowhere/keys")]),
        ["API_KEYS_FILE"]
    );
    let file = std::env::temp_dir().join(format!("task-processor-keys-{}", std::process::id()));
    let path = file.to_str().expect("text");
    for (text, is_right) in [("# none\n", false), (entry.as_str(), true)] {
        std::fs::write(&file, text).expect("a file");
        let wrong = names::<ServerSettings>(&[("API_KEYS_FILE", path)]);
        assert_eq!(wrong.is_empty(), is_right, "{text}");
    }
    let both = [("API_KEYS", entry.as_str()), ("API_KEYS_FILE", path)];
    assert_eq!(names::<ServerSettings>(&both), ["API_KEYS"]);
    std::fs::remove_file(&file).expect("it goes away");
}

/// A directory with an authority in `root.pem`, its key in `root.key`, and no certificate in `empty.pem`.
fn with_certificates(name: &str, check: impl FnOnce(&dyn Fn(&str) -> String)) {
    let unique = format!("task-processor-{name}-{}", std::process::id());
    let directory = std::env::temp_dir().join(unique);
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    for (file, text) in [
        ("root.pem", made.cert.pem()),
        ("root.key", made.signing_key.serialize_pem()),
        ("empty.pem", String::new()),
    ] {
        std::fs::write(path(file), text).expect("a file");
    }
    check(&path);
    std::fs::remove_dir_all(&directory).expect("it goes away");
}

#[test]
fn tls_of_postgresql_becomes_part_of_its_address() {
    with_certificates("database", |path| {
        let (root, key, empty) = (path("root.pem"), path("root.key"), path("empty.pem"));
        let (mode, cert) = ("DATABASE_SSL_MODE", "DATABASE_SSL_ROOT_CERT");
        let query = |pairs: &[(&str, &str)]| {
            let server = read::<ServerSettings>(pairs).expect("all right");
            let url = url::Url::parse(&server.database.url).expect("a URL");
            let query = url.query_pairs().into_owned().collect::<Vec<_>>();
            let pairs = query.iter().map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join(" ")
        };
        let trusted = format!("sslrootcert={root}");
        assert_eq!(query(&[]), "");
        assert_eq!(query(&[(mode, "prefer")]), "");
        assert_eq!(query(&[(mode, "disable")]), "sslmode=disable");
        assert_eq!(query(&[(mode, "require")]), "sslmode=require");
        for (word, meant) in [
            ("verify-full", "verify-full"),
            ("verify-ca", "verify-ca"),
            // As libpq does it: a root that is named is checked against.
            ("require", "verify-ca"),
        ] {
            let expected = format!("sslmode={meant} {trusted}");
            assert_eq!(query(&[(mode, word), (cert, &root)]), expected);
        }
        let address = format!("postgres://h/d?sslmode=require&sslrootcert={root}");
        let of_address = query(&[("DATABASE_URL", &address)]);
        assert!(of_address.ends_with("sslmode=verify-ca"), "{of_address}");
        let beside = [("DATABASE_URL", "postgres://h/d"), (mode, "verify-full")];
        assert_eq!(query(&beside), "sslmode=verify-full");

        let required = "postgres://h/d?sslmode=require";
        let named = format!("postgres://h/d?sslrootcert={root}");
        let whole = format!("{named}&sslmode=verify-full");
        let half = format!("postgres://h/d?sslcert={root}");
        let pair = format!("{half}&sslkey={key}");
        assert!(query(&[("DATABASE_URL", &pair)]).contains("sslkey"));
        let wrong: [(&[(&str, &str)], &str); 8] = [
            (&[(cert, &root)], cert),
            (&[(cert, &root), (mode, "disable")], cert),
            (&[(cert, &empty), (mode, "verify-full")], cert),
            (&[(cert, &key), (mode, "verify-full")], cert),
            (&[("DATABASE_URL", required), (mode, "require")], mode),
            (&[("DATABASE_URL", &whole), (cert, &root)], cert),
            (&[("DATABASE_URL", &named)], "DATABASE_URL"),
            (&[("DATABASE_URL", &half)], "DATABASE_URL"),
        ];
        for (pairs, name) in wrong {
            assert_eq!(names::<ServerSettings>(pairs), [name], "{pairs:?}");
            assert_eq!(names::<MigrateSettings>(pairs), [name], "{pairs:?}");
        }
    });
}

#[test]
fn tls_and_login_of_redis_become_its_address() {
    with_certificates("redis", |path| {
        let (root, key) = (path("root.pem"), path("root.key"));
        let (tls, ca) = ("REDIS_TLS", "REDIS_TLS_CA_CERT_FILE");
        let password = ("REDIS_PASSWORD", "p/w:x@?#");
        let redis = |pairs: &[(&str, &str)]| {
            let server = read::<ServerSettings>(pairs).expect("all right");
            assert!(!format!("{server:?}").contains("p/w"), "{server:?}");
            server.redis
        };
        for (pairs, url) in [
            (vec![password], "redis://:p%2Fw%3Ax%40%3F%23@localhost:6379"),
            (
                vec![password, ("REDIS_USERNAME", "a@b")],
                "redis://a%40b:p%2Fw%3Ax%40%3F%23@localhost:6379",
            ),
            (vec![(tls, "true")], "rediss://localhost:6379"),
            (
                vec![(tls, "true"), ("REDIS_HOST", "::1")],
                "rediss://[::1]:6379",
            ),
        ] {
            assert_eq!(redis(&pairs).url, url);
        }
        for pairs in [
            [(tls, "true"), (ca, root.as_str())],
            [("REDIS_URL", "rediss://cache"), (ca, &root)],
        ] {
            let settings = redis(&pairs);
            assert_eq!(
                settings.root_certificates.as_deref(),
                Some(std::path::Path::new(&root))
            );
        }
        let wrong: [(&[(&str, &str)], &str); 5] = [
            (&[("REDIS_USERNAME", "task")], "REDIS_PASSWORD"),
            (&[(ca, &root)], ca),
            (&[("REDIS_URL", "redis://cache"), (ca, &root)], ca),
            (&[("REDIS_URL", "redis://cache"), (tls, "true")], tls),
            (&[(tls, "true"), (ca, &key)], ca),
        ];
        for (pairs, name) in wrong {
            assert_eq!(names::<ServerSettings>(pairs), [name], "{pairs:?}");
        }
    });
}

#[test]
fn tls_and_login_of_kafka_are_whole_or_refused_by_name() {
    with_certificates("kafka", |path| {
        let (root, key, empty) = (path("root.pem"), path("root.key"), path("empty.pem"));
        let protocol = |word| ("KAFKA_SECURITY_PROTOCOL", word);
        let user = ("KAFKA_SASL_USERNAME", "task");
        let password = ("KAFKA_SASL_PASSWORD", "hunter2");
        let ca = ("KAFKA_SSL_CA_LOCATION", root.as_str());
        let certificate = ("KAFKA_SSL_CERTIFICATE_LOCATION", root.as_str());
        let private = ("KAFKA_SSL_KEY_LOCATION", key.as_str());
        let plain = read::<ServerSettings>(&[]).expect("all right");
        assert!(plain.kafka.security.is_none());
        let whole = [
            protocol("sasl_ssl"),
            user,
            password,
            ca,
            certificate,
            private,
            ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512"),
        ];
        let worker = read::<WorkerSettings>(&whole).expect("all right");
        assert!(!format!("{worker:?}").contains("hunter2"), "{worker:?}");
        let security = worker.kafka.security;
        assert_eq!(security.protocol(), "sasl_ssl");
        let login = security.login.expect("it was given");
        assert_eq!(login.mechanism.as_str(), "SCRAM-SHA-512");
        assert_eq!(
            (login.username.as_str(), login.password.as_str()),
            ("task", "hunter2")
        );
        assert!(security.tls.and_then(|tls| tls.identity).is_some());

        type Pairs<'a> = &'a [(&'a str, &'a str)];
        let client = ("KAFKA_CLIENT", "kafka-rust");
        let wrong: [(Pairs<'_>, &[&str]); 10] = [
            (&[protocol("sasl_ssl")], &[user.0, password.0]),
            (&[protocol("sasl_plaintext"), user], &[password.0]),
            (&[protocol("sasl_ssl"), password], &[user.0]),
            (&[protocol("ssl"), user, password], &[user.0, password.0]),
            (&[user, password], &[user.0, password.0]),
            (&[ca], &[ca.0]),
            (&[protocol("sasl_plaintext"), user, password, ca], &[ca.0]),
            (&[protocol("ssl"), certificate], &[private.0]),
            (&[protocol("ssl"), (ca.0, &empty)], &[ca.0]),
            (&[protocol("ssl"), client], &["KAFKA_SECURITY_PROTOCOL"]),
        ];
        for (pairs, expected) in wrong {
            let mistakes = read::<ServerSettings>(pairs).expect_err("a mistake");
            assert!(!mistakes.to_string().contains("hunter2"), "{mistakes}");
            assert_eq!(names::<ServerSettings>(pairs), expected, "{pairs:?}");
        }
    });
}

#[test]
fn origins_are_read_or_refused_by_name() {
    const NAME: &str = "CORS_ALLOWED_ORIGINS";
    let allowed = |text| {
        let settings = read::<ServerSettings>(&[(NAME, text)]).expect("all right");
        settings.http.allowed_origins
    };
    assert!(allowed("").is_empty());
    assert_eq!(allowed(" * "), ["*"]);
    assert_eq!(
        allowed("https://app.example, http://localhost:5173,http://[::1]:8080,"),
        [
            "https://app.example",
            "http://localhost:5173",
            "http://[::1]:8080"
        ]
    );
    for (wrong, told) in [
        (",", "must name at least one origin"),
        ("*, https://app.example", "must be * alone"),
        ("app.example", "\"app.example\" is none"),
        ("null", "\"null\" is none"),
        ("https://*.example", "must be * alone"),
        ("ftp://app.example", "is none"),
        ("https://app.example/", "is \"https://app.example\" there"),
        ("https://App.example", "is \"https://app.example\" there"),
        (
            "https://app.example:443",
            "is \"https://app.example\" there",
        ),
        (
            "https://a.example,http://b.example/x",
            "\"http://b.example\"",
        ),
        (
            "https://bücher.example",
            "\"https://xn--bcher-kva.example\"",
        ),
    ] {
        let mistakes = read::<ServerSettings>(&[(NAME, wrong)]).expect_err("is refused");
        assert_eq!(mistakes.0[0].name, NAME, "{wrong}");
        assert!(mistakes.to_string().contains(told), "{mistakes}");
    }
    // A worker has no page to serve.
    assert!(names::<WorkerSettings>(&[(NAME, "*")]).is_empty());
}

#[test]
fn a_certificate_and_its_key_are_checked_before_anything_starts() {
    let directory = std::env::temp_dir().join(format!("task-processor-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
    for name in ["ours", "other"] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let files = [
            (format!("{name}.pem"), made.cert.pem()),
            (format!("{name}.key"), made.signing_key.serialize_pem()),
        ];
        for (file, text) in files {
            std::fs::write(path(&file), text).expect("a file");
        }
    }
    std::fs::write(path("empty"), "").expect("a file");
    let torn = "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n";
    std::fs::write(path("torn"), torn).expect("a file");
    let (certificate, key) = ("TLS_CERTIFICATE_FILE", "TLS_KEY_FILE");
    let (ours, ours_key) = (path("ours.pem"), path("ours.key"));
    let good = [(certificate, ours.as_str()), (key, ours_key.as_str())];
    let read_well = read::<ServerSettings>(&good).expect("they belong together");
    assert!(read_well.http.tls.is_some());
    assert_eq!(read_well.http.scheme(), "https");
    assert!(read::<WorkerSettings>(&good).is_ok());
    assert!(read::<StandaloneSettings>(&good).is_ok());
    let check = |pairs: &[(&str, &str)], named: &str, reason: &str| {
        let Mistakes(mistakes) = read::<ServerSettings>(pairs).expect_err("a mistake");
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert_eq!(mistakes[0].name, named);
        assert!(mistakes[0].reason.contains(reason), "{mistakes:?}");
    };
    check(&good[..1], key, "must be set when TLS_CERTIFICATE_FILE is");
    check(&good[1..], certificate, "must be set when TLS_KEY_FILE is");
    for (file, reason) in [
        ("nowhere", "cannot be read"),
        ("empty", "holds no certificate"),
        ("ours.key", "holds no certificate"),
        ("torn", "can be used"),
    ] {
        check(&[(certificate, &path(file)), good[1]], certificate, reason);
    }
    for (file, reason) in [
        ("nowhere", "cannot be read"),
        ("empty", "holds no private key"),
        ("ours.pem", "holds no private key"),
        ("other.key", "does not fit the certificate"),
    ] {
        check(&[good[0], (key, &path(file))], key, reason);
    }
    std::fs::remove_dir_all(&directory).expect("it goes away");
}
