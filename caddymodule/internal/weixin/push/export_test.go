package push

import "time"

// SealWith is Seal with the random bytes given.
func (r *Receiver) SealWith(random string, message []byte, with Key) string {
	return r.seal([]byte(random), message, with)
}

// ReplyWith is Reply with the Encrypt given.
func (r *Receiver) ReplyWith(f Format, encrypt, nonce string, at int64) []byte {
	return r.reply(f, encrypt, nonce, time.Unix(at, 0))
}
