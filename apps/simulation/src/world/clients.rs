//! Clients, who write down what they are told.

use super::act::payload_of;
use super::*;

impl World {
    /// A client sends one request with these submissions.
    pub(super) fn submit(&mut self, slot: usize, wishes: &[Wish], patience: u64, is_probe: bool) {
        let store_now = self.store_clock.now();
        let default_attempts = self.plan.submit.max_attempts;
        let mut entries = self.ledger.entries();
        let request = entries.requests;
        entries.requests += 1;
        let first = entries.asked.len();
        let mut submissions = Vec::with_capacity(wishes.len());
        for (number, wish) in (first..).zip(wishes) {
            let run_at = wish
                .run_in
                .map(|millis| store_now.after(Duration::from_millis(millis)));
            let payload = wish.script.to_payload(number);
            submissions.push(Submission {
                payload: payload_of(&payload),
                priority: Priority::clamped(i64::try_from(number % 11).unwrap_or(0)),
                run_at,
                max_attempts: wish.max_attempts,
                trace: None,
            });
            let max_attempts = wish.max_attempts.unwrap_or(default_attempts);
            entries.asked.push(Asked {
                payload,
                script: wish.script.clone(),
                max_attempts,
                run_at,
                request,
                is_poison: max_attempts == 0 || max_attempts == u32::MAX,
                told: Told::Nothing,
                told_at: 0,
                is_probe,
            });
        }
        let count = wishes.len();
        let who = self.servers[slot].as_ref().map(|server| server.link.who);
        self.sky.trace.note(Who::WORLD, "submit", first as u64, || {
            let payloads: Vec<&str> = entries.asked[first..]
                .iter()
                .map(|asked| asked.payload.as_str())
                .collect();
            let server = who.map_or("no one".to_owned(), |who| who.to_string());
            format!("{} to {server}", payloads.join(" "))
        });
        drop(entries);
        let Some(server) = &mut self.servers[slot] else {
            self.ledger.tell(&self.sky, first, count, |_| {
                Told::Refused("no one listens".into())
            });
            return;
        };
        let (mut reply, answer) = oneshot::channel();
        let submitter = Arc::clone(&server.submitter);
        let link = Arc::clone(&server.link);
        while server.handlers.try_join_next().is_some() {}
        server.handlers.spawn(async move {
            tokio::select! {
                biased;
                // A client that hangs up takes its handler with it.
                () = reply.closed() => {}
                outcome = async {
                    link.pass().await;
                    let outcome = submitter.submit(submissions).await;
                    link.pass().await;
                    outcome
                } => {
                    let _ = reply.send(outcome);
                }
            }
        });
        let (ledger, sky) = (Arc::clone(&self.ledger), Arc::clone(&self.sky));
        while self.clients.try_join_next().is_some() {}
        self.clients.spawn(async move {
            let answer = timeout(Duration::from_millis(patience), answer).await;
            ledger.tell(&sky, first, count, |index| match &answer {
                Ok(Ok(Ok(accepted))) => {
                    accepted
                        .get(index)
                        .map_or(Told::Nothing, |accepted| Told::Accepted {
                            id: accepted.id,
                            created_at: accepted.created_at,
                        })
                }
                Ok(Ok(Err(error))) => told_of(error),
                Ok(Err(_)) | Err(_) => Told::Nothing,
            });
        });
    }

    pub(super) fn read(&mut self, slot: usize, id: TaskId) {
        let Some(server) = &mut self.servers[slot] else {
            return;
        };
        let began_at = self.sky.trace.now();
        let (reader, link) = (server.reader.clone(), Arc::clone(&server.link));
        let ledger = Arc::clone(&self.ledger);
        let sky = Arc::clone(&self.sky);
        server.handlers.spawn(async move {
            link.pass().await;
            let reading = reader.read(id).await;
            link.pass().await;
            let said = match reading {
                Ok(Reading::Done(result)) => Said::Done(result),
                Ok(Reading::Unfinished(task)) => Said::Unfinished(task.status),
                Ok(Reading::Unknown) => Said::Unknown,
                Err(_) => Said::Nothing,
            };
            sky.trace
                .note(link.who, "said", 0, || format!("{id}: {said:?}"));
            ledger.entries().reads.push(Read {
                id,
                began_at,
                ended_at: sky.trace.now(),
                said,
            });
        });
    }
}

fn told_of(error: &SubmitError) -> Told {
    match error {
        SubmitError::Unavailable(_) | SubmitError::Stopped => Told::Unavailable,
        refused => Told::Refused(refused.to_string()),
    }
}

impl Ledger {
    /// Writes down what a client was told about `count` submissions from `first` on.
    fn tell(&self, sky: &Sky, first: usize, count: usize, told: impl Fn(usize) -> Told) {
        let mut entries = self.entries();
        for index in 0..count {
            let told = told(index);
            let number = first + index;
            sky.trace.note(Who::WORLD, "told", number as u64, || {
                format!("{}: {told:?}", entries.asked[number].payload)
            });
            let asked = &mut entries.asked[number];
            asked.told = told;
            asked.told_at = sky.trace.now();
        }
    }
}
