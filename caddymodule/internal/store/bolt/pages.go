package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// bbolt follows the pages of a tree wherever they lead. A branch page that leads
// back to itself uses up the memory or the stack, which ends the process and
// cannot be caught (docs/stores.md#bbolt-damage). So checkPages first walks the
// tree by bbolt's file format, and comes by no page twice.

const (
	pageHeader = 16 // id uint64, flags uint16, count uint16, overflow uint32

	// pageElement is the size of an element. Branch: position uint32, key size
	// uint32, page uint64. Leaf: flags, position, key size, value size uint32.
	pageElement = 16

	bucketHeader = 16 // root page uint64, sequence uint64

	branchPage = 0x01
	leafPage   = 0x02

	// bucketElement flags a leaf element whose value is a bucket: its root page
	// uint64, or 0 and the page itself (an inline bucket).
	bucketElement = 0x01
)

// census is what a walk over the pages of one state of a file counts.
type census struct {
	txid int                     // of the state
	rows [len(bucketNames)]int64 // in each bucket
	used int64                   // bytes of the pages in use
}

// pageWalk is a walk over the pages of one state of a file.
type pageWalk struct {
	census
	from     func(at int64, size int) ([]byte, error) // valid until the next call
	pageSize int
	pages    uint64   // in the file
	seen     []uint64 // a bit a page
}

// checkPages counts the content that tx shows. It reports damage when the pages
// form no tree. It reads the file by way of memory first, which is several times
// faster. An error there does not tell damage from an unreadable disk, so it then
// reads the file.
func checkPages(tx *bolt.Tx, file *os.File) (n census, err error) {
	if m, unmap := mapped(file, tx.Size()); m != nil {
		inMemory := func(at int64, size int) ([]byte, error) { return m[at:][:size], nil }
		err := protect(func() (err error) {
			n, err = walkPages(tx, inMemory)
			return err
		})
		unmap()
		if err == nil {
			return n, nil
		}
	}
	var buf []byte
	return walkPages(tx, func(at int64, size int) ([]byte, error) {
		buf = slices.Grow(buf[:0], size)[:size]
		_, err := file.ReadAt(buf, at)
		return buf, err
	})
}

func walkPages(
	tx *bolt.Tx, from func(at int64, size int) ([]byte, error),
) (n census, err error) {
	size := tx.DB().Info().PageSize
	w := &pageWalk{from: from, pageSize: size, pages: uint64(tx.Size()) / uint64(size)}
	w.txid, w.used = tx.ID(), 2*int64(size) // two headers
	w.seen = make([]uint64, w.pages/64+1)
	todo := []pageRef{{id: uint64(tx.Cursor().Bucket().Root()), top: true}}
	for len(todo) > 0 {
		ref := todo[len(todo)-1]
		next, err := w.visit(ref)
		if err != nil {
			return census{}, fmt.Errorf("reading page %d: %w", ref.id, err)
		}
		todo = append(todo[:len(todo)-1], next...)
	}
	return w.census, nil
}

// pageRef leads to a page whose keys lie in [from, to); nil is no bound.
type pageRef struct {
	id       uint64
	from, to []byte
	top      bool   // the page holds the buckets
	rows     *int64 // counts the rows of the page's bucket; nil: not one of ours
}

// rowsOf returns the counter of a bucket, or nil.
func (w *pageWalk) rowsOf(name []byte) *int64 {
	for i := range bucketNames {
		if bytes.Equal(bucketNames[i], name) {
			return &w.rows[i]
		}
	}
	return nil
}

// visit reads a page and returns the pages below it. It refuses keys that are
// out of order or outside the page's bounds: bbolt panics on them when it opens a
// file, while a goroutine of its own goes on.
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
	w.used += int64(len(page))
	if flags == leafPage && ref.rows != nil {
		*ref.rows += int64(count)
	}
	last := ref.from
	for i := range count {
		at := pageHeader + i*pageElement
		e := page[at:]
		pos, keySize, valueSize := u32(e, 0), u32(e, 4), uint64(0)
		if flags == leafPage {
			pos, keySize, valueSize = u32(e, 4), u32(e, 8), u32(e, 12)
		}
		start := uint64(at) + pos
		end := start + keySize
		if end+valueSize > uint64(len(page)) {
			return nil, fmt.Errorf("%w: element %d is not inside it", errDamage, i)
		}
		key := page[start:end]
		c := bytes.Compare(key, last)
		beyond := i == count-1 && ref.to != nil && bytes.Compare(key, ref.to) >= 0
		if c < 0 || c == 0 && i > 0 || beyond {
			return nil, fmt.Errorf("%w: key %d does not belong there", errDamage, i)
		}
		last = key
		switch {
		case flags == branchPage:
			key = bytes.Clone(key)
			if i > 0 {
				below[i-1].to = key
			}
			below = append(below, pageRef{
				id: u64(e, 8), from: key, to: ref.to, top: ref.top, rows: ref.rows,
			})
		case u32(e, 0)&bucketElement != 0:
			if valueSize < bucketHeader {
				return nil, fmt.Errorf("%w: element %d is no bucket", errDamage, i)
			}
			var rows *int64
			if ref.top {
				rows = w.rowsOf(key)
			}
			if root := u64(page, end); root != 0 {
				below = append(below, pageRef{id: root, rows: rows})
			} else if !inlineLeaf(page[end : end+valueSize]) {
				return nil, fmt.Errorf("%w: element %d is no inline bucket", errDamage, i)
			} else if rows != nil {
				*rows += int64(u16(page, int(end)+bucketHeader+10))
			}
		}
	}
	return below, nil
}

// read returns a page and those that it overflows into, valid until the next
// call.
func (w *pageWalk) read(id uint64) (page []byte, flags, count int, err error) {
	at := int64(id) * int64(w.pageSize)
	head, err := w.from(at, w.pageSize)
	if err != nil {
		return nil, 0, 0, err
	}
	flags, count = u16(head, 8), u16(head, 10)
	overflow := u32(head, 12)
	switch {
	case u64(head, 0) != id || (flags != branchPage && flags != leafPage):
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

// inlineLeaf reports whether the value of an inline bucket holds a leaf page.
// bbolt follows the value without checking.
func inlineLeaf(v []byte) bool {
	if len(v) < bucketHeader+pageHeader {
		return false
	}
	page := v[bucketHeader:]
	count := u16(page, 10)
	if u16(page, 8) != leafPage || pageHeader+count*pageElement > len(page) {
		return false
	}
	var last []byte
	for i := range count {
		at := pageHeader + i*pageElement
		e := page[at:]
		start := uint64(at) + u32(e, 4)
		end := start + u32(e, 8)
		if u32(e, 0)&bucketElement != 0 || end+u32(e, 12) > uint64(len(page)) {
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

// Numbers in a bbolt file have the byte order of the machine.

func u16(b []byte, at int) int { return int(binary.NativeEndian.Uint16(b[at:])) }

func u32(b []byte, at int) uint64 { return uint64(binary.NativeEndian.Uint32(b[at:])) }

func u64[T int | uint64](b []byte, at T) uint64 { return binary.NativeEndian.Uint64(b[at:]) }
