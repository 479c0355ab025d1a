package wechatauth

import (
	"bytes"
	"io"
	"net"
	"testing"

	"pgregory.net/rapid"
)

// frame is a frame of a WebSocket with a payload of some length.
func frame(size int, masked bool) []byte {
	var mask byte
	if masked {
		mask = 0x80
	}
	head := []byte{0x82}
	switch {
	case size < 126:
		head = append(head, mask|byte(size))
	case size < 1<<16:
		head = append(head, mask|126, byte(size>>8), byte(size))
	default:
		head = append(head, mask|127, 0, 0, 0, 0, byte(size>>24), byte(size>>16), byte(size>>8),
			byte(size))
	}
	if masked {
		head = append(head, 1, 2, 3, 4)
	}
	return append(head, bytes.Repeat([]byte{0x88}, size)...)
}

// TestFrames_AnyPieces_EndWhereTheyEnd holds that the end of a frame is found however
// the app's bytes are cut.
func TestFrames_AnyPieces_EndWhereTheyEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []byte
		ends := map[int]bool{0: true}
		for range rapid.IntRange(1, 4).Draw(t, "frames") {
			size := rapid.SampledFrom([]int{0, 1, 125, 126, 127, 300, 65535, 65536, 70000}).
				Draw(t, "size")
			all = append(all, frame(size, rapid.Bool().Draw(t, "masked"))...)
			ends[len(all)] = true
		}
		var f frames
		for at := 0; at < len(all); {
			n := rapid.IntRange(1, len(all)-at).Draw(t, "piece")
			want := at
			for !ends[want] && want < at+n {
				want++
			}
			if got := at + f.rest(all[at:at+n]); got != want {
				t.Fatalf("from %d to %d: the frame ends at %d, want %d", at, at+n, got, want)
			}
			f.pass(all[at : at+n])
			if at += n; f.between() != ends[at] {
				t.Fatalf("at %d: between is %v", at, f.between())
			}
		}
	})
}

// TestSocket_EndInAFrame_ClosesAfterIt: what the client gets is whole frames, and then
// the close frame.
func TestSocket_EndInAFrame_ClosesAfterIt(t *testing.T) {
	ours, theirs := net.Pipe()
	c := &socketConn{Conn: ours}
	whole := append(frame(300, false), frame(5, false)...)
	go func() {
		c.Write(whole[:100])
		go c.end()
		for {
			c.mu.Lock()
			ending := c.ending
			c.mu.Unlock()
			if ending {
				break
			}
		}
		// The rest of the frame, and one more, which the client must not get.
		if n, err := c.Write(whole[100:]); n != len(whole)-100 || err != nil {
			t.Errorf("the app sees %d, %v", n, err)
		}
		c.Write(frame(5, false))
	}()
	got, err := io.ReadAll(theirs)
	if want := append(frame(300, false), closeFrame...); !bytes.Equal(got, want) || err != nil {
		t.Errorf("%d bytes, want %d; %v: …%q", len(got), len(want), err, got[max(0, len(got)-60):])
	}
}
