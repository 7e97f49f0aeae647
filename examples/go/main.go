// Serves clients that nginx hands over: docs/protocol.md by hand, with the standard library alone.
//
//	go run . /run/ws-handoff/backend.sock
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
)

const (
	upgrade  = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
	notFound = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\nno echo\n"
	tooLarge = "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n"
)

var errMalformed = errors.New("malformed commit, or too much early data")

// serve has a connection of nginx's, which is for one client.
func serve(conn *net.UnixConn) error {
	var head, piece = []byte(nil), make([]byte, 4096)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		if len(head) > 65536 {
			return answer(conn, tooLarge)
		}
		// Behind the head nginx is silent until it has an answer.
		n, _, _, _, err := conn.ReadMsgUnix(piece, nil)
		if n == 0 || err != nil {
			return err
		}
		head = append(head, piece[:n]...)
	}
	request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return err
	}
	if !strings.HasSuffix(request.URL.Path, "/echo") {
		return answer(conn, notFound) // a refusal, which the client gets
	}
	if !isOffered(request.Header.Values("Handoff")) {
		if err := answer(conn, upgrade+"\r\n"); err != nil { // wss: nginx tunnels, and this connection is the client's
			return err
		}
		return echo(conn, conn)
	}
	if err := answer(conn, upgrade+"Handoff: fd\r\n\r\n"); err != nil {
		return err
	}
	fd, err := receiveOffer(conn)
	if err != nil {
		return err
	}
	early, err := receiveCommit(conn)
	if err != nil {
		if errors.Is(err, errMalformed) {
			syscall.Shutdown(fd, syscall.SHUT_RDWR) // close hangs up on nobody while nginx has it, too
		}
		syscall.Close(fd) // no commit, so close and nothing else
		return err
	}
	// Go's own socket of the same description: net.FileConn makes a duplicate.
	file := os.NewFile(uintptr(fd), "client")
	client, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return err
	}
	err = echo(client, io.MultiReader(bytes.NewReader(early), client))
	hangUp(client)
	return err
}

// hangUp does at once what closing does when nginx has closed as well, which it is about to.
func hangUp(client net.Conn) {
	if stream, ok := client.(interface{ CloseWrite() error }); ok {
		stream.CloseWrite()
	}
	client.Close()
}

func answer(conn *net.UnixConn, text string) error {
	_, err := conn.Write([]byte(text))
	return err
}

// isOffered reads a list, in any case. A version of fd other than 1 is not this one.
func isOffered(values []string) bool {
	for _, element := range strings.Split(strings.ToLower(strings.Join(values, ",")), ",") {
		way, parameters, _ := strings.Cut(element, ";")
		offered := strings.TrimSpace(way) == "fd"
		for _, parameter := range strings.Split(parameters, ";") {
			parameter = strings.TrimSpace(parameter)
			offered = offered && (parameter == "v=1" || !strings.HasPrefix(parameter, "v="))
		}
		if offered {
			return true
		}
	}
	return false
}

// receiveOffer gives the client's socket, which comes beside the byte F. It may not be touched yet.
func receiveOffer(conn *net.UnixConn) (int, error) {
	byteF, control := make([]byte, 1), make([]byte, syscall.CmsgSpace(8*4))
	n, size, flags, _, err := conn.ReadMsgUnix(byteF, control) // sets MSG_CMSG_CLOEXEC itself
	if err != nil {
		return -1, err
	}
	var descriptors []int
	messages, _ := syscall.ParseSocketControlMessage(control[:size])
	for i := range messages {
		some, _ := syscall.ParseUnixRights(&messages[i])
		descriptors = append(descriptors, some...)
	}
	if n == 1 && byteF[0] == 'F' && len(descriptors) == 1 && flags&syscall.MSG_CTRUNC == 0 {
		return descriptors[0], nil
	}
	for _, fd := range descriptors {
		syscall.Close(fd)
	}
	return -1, errors.New("nginx gave up before the offer")
}

// receiveCommit gives what the client had sent already. Sections other than 0 (the end) and 1 are skipped.
func receiveCommit(conn *net.UnixConn) ([]byte, error) {
	var early bytes.Buffer
	section := make([]byte, 5)
	if _, err := io.ReadFull(conn, section[:1]); err != nil {
		return nil, err
	}
	if section[0] != 'C' {
		return nil, errMalformed
	}
	for {
		if _, err := io.ReadFull(conn, section); err != nil {
			return nil, err
		}
		kind, length := section[0], int64(binary.BigEndian.Uint32(section[1:]))
		content := io.Writer(io.Discard)
		switch {
		case kind == 0 && length == 0:
			return early.Bytes(), nil
		case kind == 0 || kind == 1 && int64(early.Len())+length > 65536:
			return nil, errMalformed
		case kind == 1:
			content = &early
		}
		if _, err := io.CopyN(content, conn, length); err != nil {
			return nil, err
		}
	}
}

func main() {
	path := os.Args[1]
	syscall.Umask(0o117) // the socket is for its owner and its group, nginx's
	os.Remove(path)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close()
			if err := serve(conn); err != nil { // the end of one client
				log.Print(err)
			}
		}()
	}
}
