// A WebSocket client over TLS, of Go's standard library alone: what it sends has to come back.
//
//	client -port PORT -ca FILE [-name NAME] [-cert FILE -key FILE] [-version 1.2|1.3] [-visits N]
//
// Each visit after the first has to resume the session. Ends with 1 and says what was wrong, if anything was.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	key    = "dGhlIHNhbXBsZSBub25jZQ=="
	accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" // RFC 6455 1.3
)

var sizes = []int{0, 1, 125, 126, 16384, 65535, 65536, 1 << 20, 16 << 20}

func main() {
	port := flag.Int("port", 0, "port of 127.0.0.1")
	ca := flag.String("ca", "", "file with the server's certificate")
	name := flag.String("name", "localhost", "the server's name")
	cert := flag.String("cert", "", "file with a certificate of the client's own")
	certKey := flag.String("key", "", "file with its key")
	version := flag.String("version", "1.3", "the only version of TLS")
	visits := flag.Int("visits", 1, "how many connections, one after the other")
	flag.Parse()
	config, err := configuration(*ca, *name, *version, *cert, *certKey)
	check(err)
	for visit := 0; visit < *visits; visit++ {
		check(visitOnce(*port, config, visit > 0))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func configuration(ca, name, version, cert, certKey string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", ca)
	}
	config := &tls.Config{
		RootCAs:            roots,
		ServerName:         name,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(8),
		MinVersion:         tls.VersionTLS13,
		MaxVersion:         tls.VersionTLS13,
	}
	if version == "1.2" {
		config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, certKey)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func visitOnce(port int, config *tls.Config, resumes bool) error {
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), config)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return err
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != "http/1.1" {
		return fmt.Errorf("ALPN chose %q", state.NegotiatedProtocol)
	}
	if state.DidResume != resumes {
		return fmt.Errorf("the session was resumed: %t", state.DidResume)
	}
	reader := bufio.NewReaderSize(conn, 1<<16)
	if err := upgrade(conn, reader, config.ServerName); err != nil {
		return err
	}
	for _, size := range sizes {
		binary := make([]byte, size)
		for at := range binary {
			binary[at] = byte(at*31 + at/251)
		}
		text := bytes.Repeat([]byte("abcdefg"), size/7+1)[:size]
		for opcode, payload := range map[byte][]byte{1: text, 2: binary} {
			if _, err := conn.Write(frame(opcode, payload)); err != nil {
				return err
			}
			if err := expect(reader, opcode, payload); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
		}
	}
	if err := many(conn, reader, 10000); err != nil {
		return err
	}
	// Closed in order: an answer to the close frame, then close_notify, without which Go tells of an unexpected end.
	goodbye := []byte{3, 232}
	if _, err := conn.Write(frame(8, goodbye)); err != nil {
		return err
	}
	if err := expect(reader, 8, goodbye); err != nil {
		return err
	}
	if _, err := reader.ReadByte(); err != io.EOF {
		return fmt.Errorf("instead of an orderly end: %v", err)
	}
	return nil
}

func upgrade(conn *tls.Conn, reader *bufio.Reader, name string) error {
	_, err := fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n", name, key)
	if err != nil {
		return err
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return err
	}
	if response.StatusCode != 101 || response.Header.Get("Sec-WebSocket-Accept") != accept {
		return fmt.Errorf("not a WebSocket's answer: %s, %v", response.Status, response.Header)
	}
	return nil
}

// many has so many small texts come back, written while they are read.
func many(conn *tls.Conn, reader *bufio.Reader, count int) error {
	written := make(chan error, 1)
	go func() {
		for number := 0; number < count; number++ {
			if _, err := conn.Write(frame(1, []byte(fmt.Sprintf("message %d", number)))); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for number := 0; number < count; number++ {
		if err := expect(reader, 1, []byte(fmt.Sprintf("message %d", number))); err != nil {
			return err
		}
	}
	return <-written
}

func frame(opcode byte, payload []byte) []byte {
	size := len(payload)
	head := []byte{0x80 | opcode}
	switch {
	case size < 126:
		head = append(head, 0x80|byte(size))
	case size < 1<<16:
		head = append(head, 0x80|126, byte(size>>8), byte(size))
	default:
		head = append(head, 0x80|127, 0, 0, 0, 0, byte(size>>24), byte(size>>16), byte(size>>8), byte(size))
	}
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	head = append(head, mask[:]...)
	for at, octet := range payload {
		head = append(head, octet^mask[at%4])
	}
	return head
}

// expect reads one whole message, in however many frames it comes.
func expect(reader *bufio.Reader, opcode byte, payload []byte) error {
	var got []byte
	for first := true; ; first = false {
		var head [2]byte
		if _, err := io.ReadFull(reader, head[:]); err != nil {
			return err
		}
		if first && head[0]&0x0f != opcode || !first && head[0]&0x0f != 0 || head[1]&0x80 != 0 {
			return fmt.Errorf("a frame begins with %x", head)
		}
		size, wide := int(head[1]), 0
		switch size {
		case 126:
			size, wide = 0, 2
		case 127:
			size, wide = 0, 8
		}
		for ; wide > 0; wide-- {
			octet, err := reader.ReadByte()
			if err != nil {
				return err
			}
			size = size<<8 | int(octet)
		}
		if len(got)+size > len(payload) {
			return fmt.Errorf("%d bytes too many", len(got)+size-len(payload))
		}
		part := make([]byte, size)
		if _, err := io.ReadFull(reader, part); err != nil {
			return err
		}
		got = append(got, part...)
		if head[0]&0x80 != 0 {
			break
		}
	}
	if !bytes.Equal(got, payload) {
		return fmt.Errorf("the message came back different")
	}
	return nil
}
