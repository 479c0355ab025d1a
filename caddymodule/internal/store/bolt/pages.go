package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// bbolt follows the pages of a tree wherever they lead: a branch page that leads back to itself, or to one above it, makes it use up the memory or the stack, which ends the process and
// cannot be caught (STORE.md 2.3). So the tree is first walked here, from bbolt's file format alone: no page may be come by twice.

const (
	pageHeader  = 16 // id uint64, flags uint16, count uint16, overflow uint32
	pageElement = 16 // branch: position uint32, key size uint32, page uint64; leaf: flags, position, key size, value size uint32

	bucketHeader = 16 // root page uint64, sequence uint64

	branchPage = 0x01
	leafPage   = 0x02

	bucketElement = 0x01 // flag of a leaf element whose value is a bucket: its root page uint64, 0 when it is kept inline
)

// pageWalk is a walk over the pages of one state of a file.
type pageWalk struct {
	from     func(at int64, size int) ([]byte, error) // the file; what it returns is valid until the next call
	pageSize int
	pages    uint64   // in the file
	seen     []uint64 // a bit a page
}

// checkPages reports damage when the tree that tx shows is none. The file is first read by way of memory, which is several times faster, but what goes wrong there does not tell damage from a disk
// that cannot be read.
func checkPages(tx *bolt.Tx, file *os.File) error {
	if m, unmap := mapped(file, tx.Size()); m != nil {
		err := protect(func() error {
			return walkPages(tx, func(at int64, size int) ([]byte, error) { return m[at:][:size], nil })
		})
		unmap()
		if err == nil {
			return nil
		}
	}
	var buf []byte
	return walkPages(tx, func(at int64, size int) ([]byte, error) {
		buf = slices.Grow(buf[:0], size)[:size]
		_, err := file.ReadAt(buf, at)
		return buf, err
	})
}

func walkPages(tx *bolt.Tx, from func(at int64, size int) ([]byte, error)) error {
	size := tx.DB().Info().PageSize
	w := &pageWalk{from: from, pageSize: size, pages: uint64(tx.Size()) / uint64(size)}
	w.seen = make([]uint64, w.pages/64+1)
	todo := []pageRef{{id: uint64(tx.Cursor().Bucket().Root())}}
	for len(todo) > 0 {
		ref := todo[len(todo)-1]
		next, err := w.visit(ref)
		if err != nil {
			return fmt.Errorf("reading page %d: %w", ref.id, err)
		}
		todo = append(todo[:len(todo)-1], next...)
	}
	return nil
}

// pageRef leads to a page whose keys are not below from and below to; nil is no bound.
type pageRef struct {
	id       uint64
	from, to []byte
}

// visit reads a page and returns the pages below it. A key outside the page's bounds, or before another that it follows, is in the wrong place; bbolt, too, finds that when it opens a file, but then
// ends with a panic while a goroutine of its goes on, with what is no longer there for it.
func (w *pageWalk) visit(ref pageRef) (below []pageRef, err error) {
	if ref.id < 2 || ref.id >= w.pages {
		return nil, fmt.Errorf("%w: the file has %d", errDamage, w.pages)
	}
	page, flags, count, err := w.read(ref.id)
	if err != nil {
		return nil, err
	}
	for id := ref.id; id < ref.id+uint64(len(page)/w.pageSize); id++ {
		if w.seen[id/64]&(1<<(id%64)) != 0 {
			return nil, fmt.Errorf("%w: two ways lead to it", errDamage)
		}
		w.seen[id/64] |= 1 << (id % 64)
	}
	last := ref.from
	for i := range count {
		at := pageHeader + i*pageElement
		e := page[at:]
		pos, keySize, rest := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]), uint64(0)
		if flags == leafPage {
			pos, keySize, rest = keySize, binary.NativeEndian.Uint32(e[8:]), uint64(binary.NativeEndian.Uint32(e[12:]))
		}
		start := uint64(at) + uint64(pos)
		end := start + uint64(keySize)
		if end+rest > uint64(len(page)) {
			return nil, fmt.Errorf("%w: element %d is not inside it", errDamage, i)
		}
		key := page[start:end]
		if c := bytes.Compare(key, last); c < 0 || c == 0 && i > 0 || i == count-1 && ref.to != nil && bytes.Compare(key, ref.to) >= 0 {
			return nil, fmt.Errorf("%w: key %d does not belong there", errDamage, i)
		}
		last = key
		switch {
		case flags == branchPage:
			key = bytes.Clone(key)
			if i > 0 {
				below[i-1].to = key
			}
			below = append(below, pageRef{id: binary.NativeEndian.Uint64(e[8:]), from: key, to: ref.to})
		case binary.NativeEndian.Uint32(e)&bucketElement != 0:
			if rest < bucketHeader {
				return nil, fmt.Errorf("%w: element %d is no bucket", errDamage, i)
			}
			if root := binary.NativeEndian.Uint64(page[end:]); root != 0 {
				below = append(below, pageRef{id: root})
			} else if !inlineLeaf(page[end : end+rest]) {
				return nil, fmt.Errorf("%w: element %d is no inline bucket", errDamage, i)
			}
		}
	}
	return below, nil
}

// read returns a page with those that it overflows into. It is valid until the next call.
func (w *pageWalk) read(id uint64) (page []byte, flags, count int, err error) {
	at := int64(id) * int64(w.pageSize)
	head, err := w.from(at, w.pageSize)
	if err != nil {
		return nil, 0, 0, err
	}
	flags, count = int(binary.NativeEndian.Uint16(head[8:])), int(binary.NativeEndian.Uint16(head[10:]))
	overflow := uint64(binary.NativeEndian.Uint32(head[12:]))
	switch {
	case binary.NativeEndian.Uint64(head[:]) != id || (flags != branchPage && flags != leafPage):
		return nil, 0, 0, fmt.Errorf("%w: it holds something else", errDamage)
	case id+overflow >= w.pages:
		return nil, 0, 0, fmt.Errorf("%w: the file ends before it does", errDamage)
	}
	size := w.pageSize * int(overflow+1)
	if pageHeader+count*pageElement > size {
		return nil, 0, 0, fmt.Errorf("%w: it cannot hold %d elements", errDamage, count)
	}
	if overflow == 0 {
		return head, flags, count, nil
	}
	page, err = w.from(at, size)
	return page, flags, count, err
}

// inlineLeaf reports whether the value of a bucket that is kept inline holds a leaf page, of which bbolt would else follow whatever stands there.
func inlineLeaf(v []byte) bool {
	if len(v) < bucketHeader+pageHeader {
		return false
	}
	page := v[bucketHeader:]
	count := int(binary.NativeEndian.Uint16(page[10:]))
	if binary.NativeEndian.Uint16(page[8:]) != leafPage || pageHeader+count*pageElement > len(page) {
		return false
	}
	var last []byte
	for i := range count {
		at := pageHeader + i*pageElement
		e := page[at:]
		start := uint64(at) + uint64(binary.NativeEndian.Uint32(e[4:]))
		end := start + uint64(binary.NativeEndian.Uint32(e[8:]))
		if binary.NativeEndian.Uint32(e)&bucketElement != 0 || end+uint64(binary.NativeEndian.Uint32(e[12:])) > uint64(len(page)) {
			return false
		}
		key := page[start:end]
		if i > 0 && bytes.Compare(key, last) <= 0 {
			return false
		}
		last = key
	}
	return true
}
