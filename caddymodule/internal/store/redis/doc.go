// Package redis is the session store that several gates share: Redis 6.2 or later, or Valkey, as one server, behind sentinels, or as a cluster. It owns the layout of the keys, the
// connections and what is known of their health; it must not know HTTP, Caddy or tokens.
//
// Nothing assumes that two records live on the same server. What has to change in one step has the same hash tag and changes in one script. A script that is marked as repeatable leaves the
// same behind when it runs twice, so the client may send it again when the answer was lost; all other writes are sent once.
//
// What an acknowledged login or revocation survives is the server's to decide. With "appendfsync always" it survives the loss of the server. With "everysec" the server may lose some seconds, and
// not only with the machine: while the disk is busy it acknowledges writes that it still holds back, which a killed process takes with it.
//
// A record that cannot be read counts as absent, and is logged: its session is refused, the client logs in again, and the login writes the record anew.
package redis
