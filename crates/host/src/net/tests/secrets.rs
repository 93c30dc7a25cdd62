//! Secrets on the wire: put in for one origin, withheld from every answer, absent from every record.

use super::*;

const SECRET: &str = "s3cr3t-value-1234";

fn secret(port: u16, value: Option<&str>) -> Vec<SecretOffer> {
    let value = value.map(|v| Secret::new(v.to_owned()).unwrap());
    let origin = format!("http://good.example:{port}");
    vec![SecretOffer::new("api", &origin, "authorization", "Bearer {}", value).unwrap()]
}

#[tokio::test]
async fn a_secret_is_put_in_by_the_host_for_its_origin_only_and_shows_in_no_record() {
    let server = Server::answering(OK).await;
    let port = server.address.port();
    let world = world(here(), Tls::default(), secret(port, Some(SECRET)));
    let target = parse_target("GET", &server.url("good.example")).unwrap();
    let own: HeaderMap = [("authorization", "Bearer mine"), ("accept-encoding", "gzip")]
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
        .into_iter()
        .collect();
    let sent = world.client.start(&target, own, Full::new(Bytes::new()), &BOUNDS).await.unwrap();
    sent.head().await.unwrap().collect().await.unwrap();
    assert!(server.seen().contains(&format!("authorization: Bearer {SECRET}\r\n")), "{}", server.seen());
    assert!(!server.seen().contains("mine") && server.seen().contains("accept-encoding: identity\r\n"));
    world.ask(&server.url("other.example")).await.unwrap();
    assert_eq!(server.seen().matches(SECRET).count(), 1, "the other origin does not get it");
    let records = world.end();
    assert!(records.contains("secret.read") && !records.contains(SECRET), "{records}");
}

#[tokio::test]
async fn an_answer_that_repeats_the_secret_is_withheld_in_every_form() {
    let echoes = [
        SECRET.to_owned(),
        hex::encode(SECRET),
        "dXNlcjpzM2NyM3QtdmFsdWUtMTIzNA==".to_owned(),
        "s3cr3t%2Dvalue%2D1234".to_owned(),
    ];
    for echo in &echoes {
        let length = echo.len();
        let (first, second) = echo.split_at(length / 2);
        let answers = [
            vec![
                (0, format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{first}").into_bytes()),
                (60, second.as_bytes().to_vec()),
            ],
            vec![(0, format!("HTTP/1.1 200 OK\r\nx-echo: {echo}\r\nContent-Length: 0\r\n\r\n").into_bytes())],
        ];
        for answer in answers {
            let server = Server::slowly(answer).await;
            let world = world(here(), Tls::default(), secret(server.address.port(), Some(SECRET)));
            assert_eq!(world.refused(&server.url("good.example")).await, "SECRET-LEAK", "{echo}");
            world.end();
        }
    }
    // What cannot be looked through is withheld as well, also from another origin once the secret was sent.
    let packed =
        Server::answering("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n").await;
    let plain = Server::answering(OK).await;
    let world = world(here(), Tls::default(), secret(plain.address.port(), Some(SECRET)));
    world.ask(&packed.url("other.example")).await.unwrap();
    world.ask(&plain.url("good.example")).await.unwrap();
    assert_eq!(world.refused(&packed.url("other.example")).await, "SECRET-LEAK");
    world.end();
}

#[tokio::test]
async fn without_its_secret_a_request_is_not_sent() {
    let server = Server::answering(OK).await;
    let world = world(here(), Tls::default(), secret(server.address.port(), None));
    assert_eq!(world.refused(&server.url("good.example")).await, "SECRET-UNAVAILABLE");
    let other = SecretOffer::new(
        "other",
        &format!("http://good.example:{}", server.address.port()),
        "x-key",
        "{}",
        Some(Secret::new(SECRET.into()).unwrap()),
    )
    .unwrap();
    world.end();
    let world = super::world(here(), Tls::default(), vec![other]);
    assert_eq!(
        world.refused(&server.url("good.example")).await,
        "DEFAULT-DENY",
        "nobody permits that secret"
    );
    assert_eq!(server.taken(), 0);
    world.end();
}
