//! The client against a scripted supervisor over an in-memory stream.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use berth_supervisor_client::protocol::{
    CopyIn, CopyOut, ErrorCode, Event, Exec, ExitStatus, FileInfo, FileType, Frame, FrameReader, Kind, Reply, Request,
    encode_frame, encode_json,
};
use berth_supervisor_client::{ClientError, SupervisorClient};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

struct Peer {
    stream: DuplexStream,
    reader: FrameReader,
}

impl Peer {
    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.reader.next_frame().unwrap() {
                return Some(frame);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await.unwrap() {
                0 => return None,
                count => self.reader.push(&buffer[..count]),
            }
        }
    }

    async fn request(&mut self) -> Request {
        self.frame().await.unwrap().json().unwrap()
    }

    async fn json<T: serde::Serialize>(&mut self, value: &T) {
        let mut out = Vec::new();
        encode_json(value, &mut out).unwrap();
        self.stream.write_all(&out).await.unwrap();
    }

    async fn bytes(&mut self, kind: Kind, bytes: &[u8]) {
        let mut out = Vec::new();
        encode_frame(kind, bytes, &mut out).unwrap();
        self.stream.write_all(&out).await.unwrap();
    }
}

fn pair() -> (SupervisorClient<DuplexStream>, Peer) {
    let (near, far) = tokio::io::duplex(1024);
    (SupervisorClient::new(near), Peer { stream: far, reader: FrameReader::new() })
}

#[tokio::test]
async fn a_command_gets_its_input_and_its_output_is_bounded() {
    let (client, mut peer) = pair();
    let supervisor = async {
        assert!(matches!(peer.request().await, Request::Exec(exec) if exec.stdin));
        peer.json(&Reply::Started { pid: 7, input_window: None }).await;
        let mut input = Vec::new();
        loop {
            let frame = peer.frame().await.unwrap();
            assert_eq!(frame.kind, Kind::Stdin);
            if frame.payload.is_empty() {
                break;
            }
            input.extend(frame.payload);
        }
        assert_eq!(input.len(), 100_000);
        peer.bytes(Kind::Stdout, b"0123456789").await;
        peer.bytes(Kind::Stderr, b"first last").await;
        peer.json(&Event::Exited(ExitStatus::Code(3))).await;
    };
    let exec = Exec { argv: vec!["cat".into()], ..Exec::default() };
    let input = vec![b'x'; 100_000];
    let (output, ()) = tokio::join!(client.run(exec, &input, 4), supervisor);
    let output = output.unwrap();
    assert_eq!((output.status, output.truncated), (ExitStatus::Code(3), true));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"0123"[..], &b"last"[..]));
}

#[tokio::test]
async fn a_command_that_ends_without_reading_its_input_is_not_waited_for() {
    let (client, mut peer) = pair();
    let supervisor = async {
        peer.request().await;
        peer.json(&Reply::Started { pid: 7, input_window: None }).await;
        peer.json(&Event::Exited(ExitStatus::Signal(9))).await;
        // Nobody reads the input: the pipe stays full.
        peer
    };
    let input = vec![0; 1_000_000];
    let (output, _peer) = tokio::join!(client.run(Exec::default(), &input, 10), supervisor);
    assert_eq!(output.unwrap().status.shell_code(), 137);
}

#[tokio::test]
async fn refusals_keep_code_and_message() {
    let (mut client, mut peer) = pair();
    let supervisor = async {
        peer.request().await;
        peer.json(&Reply::Error { code: ErrorCode::NotFound, message: "there is no file /x".into() }).await;
    };
    let (result, ()) = tokio::join!(client.read_file("/x", 10), supervisor);
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (Some(ErrorCode::NotFound), "there is no file /x"));
}

#[tokio::test]
async fn a_hang_up_is_told_from_an_end() {
    let (mut client, peer) = pair();
    drop(peer);
    assert!(matches!(client.hello().await, Err(ClientError::Closed)));

    let (mut client, mut peer) = pair();
    peer.stream.write_all(&[9, 0, 0, 0, 0, b'{']).await.unwrap();
    drop(peer);
    assert!(matches!(client.receive().await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn a_file_longer_than_asked_for_is_refused() {
    let (mut client, mut peer) = pair();
    let supervisor = async {
        peer.request().await;
        let info = FileInfo {
            path: "/x".into(),
            file_type: FileType::File,
            size_bytes: 4,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified_at_ms: 0,
            truncated: false,
        };
        peer.json(&Reply::File(info)).await;
        peer.bytes(Kind::Stdout, b"12345").await;
    };
    let (result, ()) = tokio::join!(client.read_file("/x", 4), supervisor);
    assert_eq!(result.unwrap_err().code(), Some(ErrorCode::LimitReached));
}

#[tokio::test]
async fn a_full_disk_ends_an_upload_early_with_the_reason() {
    let (client, mut peer) = pair();
    let supervisor = async {
        assert!(matches!(peer.request().await, Request::CopyIn(_)));
        peer.json(&Reply::Ready).await;
        peer.frame().await.unwrap();
        peer.json(&Event::Failed { code: ErrorCode::LimitReached, message: "the disk is full".into() }).await;
        peer
    };
    let endless = futures::stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096])));
    let (result, _peer) = tokio::join!(client.copy_in(CopyIn::default(), endless), supervisor);
    assert_eq!(result.unwrap_err().to_string(), "the disk is full");
}

#[tokio::test]
async fn a_cut_archive_is_an_error() {
    let (client, mut peer) = pair();
    let supervisor = async move {
        peer.request().await;
        peer.json(&Reply::Ready).await;
        peer.bytes(Kind::Stdout, b"tar").await;
    };
    let (stream, ()) = tokio::join!(client.copy_out(CopyOut::default()), supervisor);
    let items: Vec<_> = stream.unwrap().collect().await;
    assert_eq!(items.len(), 2);
    assert_eq!(items[0].as_ref().unwrap().as_ref(), b"tar");
    assert!(matches!(items[1], Err(ClientError::Closed)));
}

#[tokio::test]
async fn a_workspace_that_stops_in_the_middle_of_an_upload_has_hung_up() {
    // A unix socket: closed with bytes that nobody read, it is reset.
    let (near, mut far) = tokio::net::UnixStream::pair().unwrap();
    let supervisor = async move {
        let mut request = [0; 8];
        far.read_exact(&mut request).await.unwrap();
        let mut ready = Vec::new();
        encode_json(&Reply::Ready, &mut ready).unwrap();
        far.write_all(&ready).await.unwrap();
        far.readable().await.unwrap();
    };
    let endless = futures::stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096])));
    let (result, ()) = tokio::join!(SupervisorClient::new(near).copy_in(CopyIn::default(), endless), supervisor);
    assert!(matches!(result, Err(ClientError::Closed)), "{result:?}");
}
