package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
)

const (
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// echo sends each frame back, a ping as a pong. WebSocket frames (RFC 6455, section 5), just enough for that; a
// library does it better, and checks more.
func echo(client net.Conn, from io.Reader) error {
	reader := bufio.NewReader(from)
	for {
		var start [2]byte
		if _, err := io.ReadFull(reader, start[:]); err != nil {
			return err
		}
		first, length := start[0], uint64(start[1]&127)
		if length > 125 {
			extended := make([]byte, 8)
			size := map[uint64]int{126: 2, 127: 8}[length]
			if _, err := io.ReadFull(reader, extended[8-size:]); err != nil {
				return err
			}
			length = binary.BigEndian.Uint64(extended)
		}
		if first&0x70 != 0 || start[1]&0x80 == 0 || length > 1<<24 {
			return errors.New("an extension that was not agreed on, no mask, or 16 MiB")
		}
		payload := make([]byte, 4+length)
		if _, err := io.ReadFull(reader, payload); err != nil {
			return err
		}
		mask, payload := payload[:4], payload[4:]
		for i := range payload {
			payload[i] ^= mask[i%4]
		}
		opcode := first & 15
		if opcode == opPing {
			first = first&0xF0 | opPong
		}
		if opcode != opPong {
			if _, err := client.Write(append(header(first, length), payload...)); err != nil {
				return err
			}
		}
		if opcode == opClose {
			return nil
		}
	}
}

func header(first byte, length uint64) []byte {
	switch {
	case length < 126:
		return []byte{first, byte(length)}
	case length < 65536:
		return binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(length))
	default:
		return binary.BigEndian.AppendUint64([]byte{first, 127}, length)
	}
}
