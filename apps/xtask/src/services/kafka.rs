//! Apache Kafka, one node that is broker and controller (KRaft), in the two releases that matter: 3.9 is the last that
//! speaks kafka-rust's protocol versions, 4.x is what is current.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::daemon::{Daemon, detached};
use super::install::Programs;
use super::place::Place;
use crate::failure::Failure;

pub(super) struct Release {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// Kafka logs through SLF4J and leaves the choice of what is behind it to the distribution.
    pub(super) logging: &'static str,
    pub(super) port: u16,
}

pub(super) static KAFKA_3: Release = Release {
    name: "kafka-3.9",
    version: "3.9.2",
    logging: "org.slf4j:slf4j-reload4j:1.7.36",
    port: 19092,
};

pub(super) static KAFKA_4: Release = Release {
    name: "kafka-4",
    version: "4.4.0",
    logging: "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
    port: 29092,
};

/// Any fixed id will do for a cluster of one; it has to be 16 bytes in URL-safe base 64.
const CLUSTER_ID: &str = "dGFza3Byb2Nlc3NvcjAwMQ";

/// Where a broker listens.
pub(super) struct Ports<'a> {
    /// In the clear; the controller has the next.
    pub(super) own: u16,
    /// The one that clients are told.
    pub(super) advertised: u16,
    pub(super) protection: Option<Protection<'a>>,
}

/// Two more ports: this one speaks TLS; the next asks for a name and a password too, by any mechanism: `task`, `task`.
pub(super) struct Protection<'a> {
    pub(super) port: u16,
    /// Holds `server.pem` and `server.key`.
    pub(super) certificate: &'a Path,
}

impl Release {
    pub(super) fn daemon(&self, place: &Place, port: u16) -> Daemon {
        let mut daemon = Daemon::new(place, self.name, port, "TERM");
        daemon.second_port = Some(port + 1);
        daemon
    }

    pub(super) fn start(
        &self,
        place: &Place,
        daemon: &Daemon,
        programs: &Programs,
    ) -> Result<(), Failure> {
        let broker = self.prepare(
            &place.path(self.name),
            &Ports {
                own: daemon.port,
                advertised: daemon.port,
                protection: None,
            },
            programs,
            detached(&programs.java),
        )?;
        daemon.start(broker)
    }

    /// Becomes a broker that keeps its data in `home`. Returns only if that fails.
    pub(super) fn become_broker(
        &self,
        home: &Path,
        ports: &Ports<'_>,
        programs: &Programs,
    ) -> Failure {
        match self.prepare(home, ports, programs, Command::new(&programs.java)) {
            Ok(mut broker) => Failure::starting(self.name)(broker.exec()),
            Err(failure) => failure,
        }
    }

    /// Lays out the directory `home` if it is new, and completes `java` to a command that runs the broker in it.
    fn prepare(
        &self,
        home: &Path,
        ports: &Ports<'_>,
        programs: &Programs,
        mut java: Command,
    ) -> Result<Command, Failure> {
        fs::create_dir_all(home).map_err(Failure::at("create", home))?;
        let properties = home.join("server.properties");
        fs::write(&properties, self.properties(ports, home)?)
            .map_err(Failure::at("write", &properties))?;
        let logging = home.join("log4j.properties");
        fs::write(&logging, LOG4J_1).map_err(Failure::at("write", &logging))?;
        let logging_2 = home.join("log4j2.properties");
        fs::write(&logging_2, LOG4J_2).map_err(Failure::at("write", &logging_2))?;

        let jars = programs.jars(self).join("*");
        let complete = |command: &mut Command| {
            command
                .current_dir(home)
                .args([
                    "-Xms128m",
                    "-Xmx384m",
                    "-XX:+UseG1GC",
                    "-Djava.net.preferIPv4Stack=true",
                ])
                .arg(format!("-Dlog4j.configuration=file:{}", logging.display()))
                .arg(format!(
                    "-Dlog4j2.configurationFile={}",
                    logging_2.display()
                ))
                .arg("-cp")
                .arg(&jars);
        };
        // Whatever is already laid out need not be looked at by a Java of its own.
        let laid_out = home.join("task-processor-ready");
        if !laid_out.exists() {
            let mut format = Command::new(&programs.java);
            complete(&mut format);
            format
                .args([
                    "kafka.tools.StorageTool",
                    "format",
                    "--ignore-formatted",
                    "--cluster-id",
                    CLUSTER_ID,
                    "--config",
                ])
                .arg(&properties);
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                format
                    .arg("--add-scram")
                    .arg(format!("{mechanism}=[name=task,password=task]"));
            }
            let output = format
                .output()
                .map_err(Failure::starting("kafka.tools.StorageTool"))?;
            if !output.status.success() {
                return Err(Failure::said(format!(
                    "formatting the storage of {} failed ({}):\n{}{}",
                    self.name,
                    output.status,
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                )));
            }
            fs::write(&laid_out, "").map_err(Failure::at("write", &laid_out))?;
        }
        complete(&mut java);
        java.arg("kafka.Kafka").arg(&properties);
        Ok(java)
    }

    /// The single-node values that Kafka's own quickstart uses, with fewer partitions for the internal topics (each costs
    /// start-up time) and no wait for more members before a group's first balance.
    fn properties(&self, ports: &Ports<'_>, home: &Path) -> Result<String, Failure> {
        let (port, advertised) = (ports.own, ports.advertised);
        let controller = port + 1;
        let data = home.join("data");
        let mut listeners = [
            format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"),
            format!("PLAINTEXT://127.0.0.1:{advertised}"),
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        ];
        let mut protection = String::new();
        if let Some(wanted) = &ports.protection {
            let (tls, login) = (wanted.port, wanted.port + 1);
            for (list, more) in listeners.iter_mut().zip([
                format!("SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{login}"),
                format!("SSL://localhost:{tls},SASL_SSL://localhost:{login}"),
                "SSL:SSL,SASL_SSL:SASL_SSL".to_owned(),
            ]) {
                list.push(',');
                list.push_str(&more);
            }
            protection = protected(wanted.certificate, home)?;
        }
        let [listening, advertised, protocols] = listeners;
        Ok(format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners={listening}\n\
             advertised.listeners={advertised}\n\
             listener.security.protocol.map={protocols}\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=8\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\n\
             group.initial.rebalance.delay.ms=0\n\
             {protection}",
            data.display()
        ))
    }
}

/// The properties of TLS and of logins. A store in PEM is one file, the key before the certificate.
fn protected(certificate: &Path, home: &Path) -> Result<String, Failure> {
    const MODULES: &str = "org.apache.kafka.common.security";
    let mut store = String::new();
    for name in ["server.key", "server.pem"] {
        let path = certificate.join(name);
        store += &fs::read_to_string(&path).map_err(Failure::at("read", &path))?;
    }
    let path = home.join("keystore.pem");
    fs::write(&path, store).map_err(Failure::at("write", &path))?;
    let mut properties = format!(
        "ssl.keystore.type=PEM\n\
         ssl.keystore.location={}\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.sasl_ssl.plain.sasl.jaas.config={MODULES}.plain.PlainLoginModule required user_task=\"task\";\n",
        path.display()
    );
    for mechanism in ["scram-sha-256", "scram-sha-512"] {
        properties += &format!(
            "listener.name.sasl_ssl.{mechanism}.sasl.jaas.config={MODULES}.scram.ScramLoginModule required;\n"
        );
    }
    Ok(properties)
}

const LOG4J_1: &str = "log4j.rootLogger=INFO, stdout\n\
    log4j.appender.stdout=org.apache.log4j.ConsoleAppender\n\
    log4j.appender.stdout.layout=org.apache.log4j.PatternLayout\n\
    log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n\n";

const LOG4J_2: &str = "rootLogger.level=info\n\
    rootLogger.appenderRef.stdout.ref=stdout\n\
    appender.stdout.type=Console\n\
    appender.stdout.name=stdout\n\
    appender.stdout.layout.type=PatternLayout\n\
    appender.stdout.layout.pattern=[%d] %p %m (%c)%n\n";

/// A broker answers when it names at least one living broker, itself.
pub(super) fn answers(port: u16) -> bool {
    brokers(port).is_ok_and(|count| count > 0)
}

/// Sends Metadata v1 for no topics, which both releases speak, and reads how many brokers the cluster has.
fn brokers(port: u16) -> std::io::Result<i32> {
    const METADATA: i16 = 3;
    const VERSION: i16 = 1;
    let limit = Duration::from_secs(5);
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit)?;
    stream.set_read_timeout(Some(limit))?;

    let mut request = Vec::new();
    request.extend(METADATA.to_be_bytes());
    request.extend(VERSION.to_be_bytes());
    request.extend(1_i32.to_be_bytes()); // correlation id
    request.extend((-1_i16).to_be_bytes()); // no client id
    request.extend(0_i32.to_be_bytes()); // no topics
    let length = i32::try_from(request.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&request)?;

    // Length and correlation id come before the number of brokers.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    let [.., a, b, c, d] = answer;
    Ok(i32::from_be_bytes([a, b, c, d]))
}
