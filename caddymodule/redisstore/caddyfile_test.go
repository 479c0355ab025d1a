package redisstore

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

func TestCaddyfile_Good_Adapts(t *testing.T) {
	setEnvironment(t)
	caddytest.RunGolden(t)
}

// TestCaddyfile_EachField_IsReachable holds that the golden Caddyfiles set every
// field.
func TestCaddyfile_EachField_IsReachable(t *testing.T) {
	said := make(map[string]bool)
	names, _ := filepath.Glob("testdata/*.caddyfiletest")
	for _, name := range names {
		_, adapted := caddytest.ReadGolden(t, name)
		var cfg struct {
			Apps struct {
				WeChat struct{ Store map[string]any }
			}
		}
		if err := json.Unmarshal([]byte(adapted), &cfg); err != nil {
			t.Fatal(err)
		}
		note(said, "", cfg.Apps.WeChat.Store)
	}
	for prefix, typ := range map[string]reflect.Type{
		"":          reflect.TypeFor[Store](),
		"tls.":      reflect.TypeFor[TLS](),
		"sentinel.": reflect.TypeFor[Sentinel](),
	} {
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name != "" && !said[prefix+name] {
				t.Errorf("nothing in the Caddyfiles sets %s%s", prefix, name)
			}
		}
	}
}

func note(said map[string]bool, prefix string, m map[string]any) {
	for k, v := range m {
		said[prefix+k] = true
		if inner, ok := v.(map[string]any); ok {
			note(said, prefix+k+".", inner)
		}
	}
}

const (
	cureAddress  = "write host:port, such as 127.0.0.1:6379"
	cureSecret   = "name it instead, as {env.NAME} or {file./run/secrets/name}"
	cureDuration = "takes a duration above zero such as 80ms or 2s"
	cureLeave    = "; leave it out for the default"

	known = "address, username, password, db, tls, sentinel, cluster, prefix, " +
		"new, dial_timeout, read_timeout or write_timeout"
)

// lines is a store with one good address and more lines; end one for a mistake that
// only the whole block shows.
func lines(text string) string { return "redis {\naddress a:1\n" + text + "\n}" }
func end(text string) string   { return "redis {\n" + text + "\n} # here" }

// wrongStores have the text that follows `store` in place of a Caddyfile.
var wrongStores = []caddytest.Wrong{
	{"nothing", "redis # here", "where is the server", "store redis 127.0.0.1:6379"},
	{"empty block", "redis { # here\n}", "where is the server", "store redis 127.0.0.1:6379"},
	{"unknown word", lines("adress b:1 # here"), `unknown word "adress"`, known},
	{
		"unknown word in tls", lines("tls {\ncertificate x # here\n}"),
		`unknown word "certificate"`, "ca, cert, key, server_name or insecure_skip_verify",
	},
	{
		"unknown word in sentinel", lines("sentinel {\nname x # here\n}"),
		`unknown word "name"`, "master, username or password",
	},
	{
		"block after a value", lines("username x { # here\n}"),
		"the word before this { takes no block",
	},
	{"argument of tls", lines("tls on # here"), "tls takes a block and no value"},
	{
		"argument of sentinel", lines("sentinel mymaster # here"),
		"sentinel takes a block and no value",
	},
	{"argument of new", lines("new yes # here"), "new takes no value"},
	{"argument of cluster", lines("cluster yes # here"), "cluster takes no value"},
	{
		"argument of insecure_skip_verify", lines("tls {\ninsecure_skip_verify true # here\n}"),
		"insecure_skip_verify takes no value",
	},

	{"address missing", "redis {\naddress # here\n}", "address takes at least one host:port"},
	{
		"address without port", "redis localhost # here",
		`"localhost" is not an address`, cureAddress,
	},
	{"address without host", "redis :6379 # here", `":6379" is not an address`, cureAddress},
	{
		"address with a word as port", "redis localhost:redis # here",
		"is not an address", cureAddress,
	},
	{"address with port 0", "redis localhost:0 # here", "is not an address", cureAddress},
	{"address with a large port", "redis localhost:65536 # here", "is not an address", cureAddress},
	{
		"address of IPv6 without brackets", "redis fd00::1:6379 # here",
		"is not an address", cureAddress,
	},
	{"addresses with a comma", "redis a:1,b:2 # here", "is not an address", cureAddress},
	{
		"address as URL", "redis redis://user:" + caddytest.Canary + "@localhost:6379/0 # here",
		"no URL", "words of their own",
	},
	{"address with a password", "redis " + caddytest.Canary + "@localhost:6379 # here", "no URL"},
	{
		"second address bad", "redis {\naddress a:1 b # here\n}",
		`"b" is not an address`, cureAddress,
	},
	{
		"several addresses", "redis a:1 b:1 # here",
		"several addresses", "sentinel { master <name> } or cluster",
	},
	{"address twice in a line", end("address a:1 a:1\ncluster"), "address a:1 is given twice"},
	{
		"socket beside an address", end("address /run/redis.sock a:1\ncluster"),
		"a unix socket leads to one server",
	},
	{"socket with tls", end("address /run/redis.sock\ntls"), "a unix socket leads to one server"},
	{
		"socket with cluster", end("address /run/redis.sock\ncluster"),
		"a unix socket leads to one server",
	},

	{"address twice", lines("address b:1 # here"), "address is given twice"},
	{"address in both places", "redis a:1 {\naddress b:1 # here\n}", "address is given twice"},
	{"username twice", lines("username a\nusername b # here"), "username is given twice"},
	{
		"password twice", lines("password {env.A}\npassword {env.B} # here"),
		"password is given twice",
	},
	{"db twice", lines("db 1\ndb 2 # here"), "db is given twice"},
	{"tls twice", lines("tls\ntls # here"), "tls is given twice"},
	{
		"sentinel twice", lines("sentinel {\nmaster m\n}\nsentinel { # here\n}"),
		"sentinel is given twice",
	},
	{"cluster twice", lines("cluster\ncluster # here"), "cluster is given twice"},
	{"prefix twice", lines("prefix a:\nprefix b: # here"), "prefix is given twice"},
	{
		"read_timeout twice", lines("read_timeout 1s\nread_timeout 2s # here"),
		"read_timeout is given twice",
	},
	{"ca twice", lines("tls {\nca a\nca b # here\n}"), "ca is given twice"},
	{"master twice", lines("sentinel {\nmaster a\nmaster b # here\n}"), "master is given twice"},

	{"username missing", lines("username # here"), "username takes one value"},
	{"two usernames", lines("username a b # here"), "username takes one value"},
	{
		"username without password", end("address a:1\nusername gate"),
		"username needs a password", "password {env.REDIS_PASSWORD}",
	},
	{
		"sentinel's username without password",
		end("address a:1\nsentinel {\nmaster m\nusername gate\n}"),
		"username of sentinel needs a password",
	},
	{
		"literal password", lines("password " + caddytest.Canary + " # here"),
		"the password is written out", cureSecret,
	},
	{
		"password from {$VAR}", lines("password {$CANARY_SECRET} # here"),
		"the password is written out", cureSecret,
	},
	{"password half a placeholder", lines("password x{env.A} # here"), cureSecret},
	{
		"literal password of sentinel",
		lines("sentinel {\npassword " + caddytest.Canary + " # here\n}"),
		"the password of sentinel is written out", cureSecret,
	},

	{"db of garbage", lines("db one # here"), "db takes a whole number from 0", `"one"`},
	{"db negative", lines("db -1 # here"), "db takes a whole number from 0", `"-1"`},
	{"db too large", lines("db 99999999999 # here"), "db takes a whole number from 0"},
	{
		"db with cluster", end("address a:1\ndb 1\ncluster"),
		"a cluster has only database 0", "prefix",
	},
	{
		"sentinel with cluster", end("address a:1\ncluster\nsentinel {\nmaster m\n}"),
		"cluster and sentinel do not go together",
	},
	{
		"sentinel without master", end("address a:1\nsentinel"),
		"sentinel needs the name of the primary: master <name>",
	},
	{
		"cert without key", end("address a:1\ntls {\ncert c\n}"),
		"tls cert and tls key belong together",
	},
	{
		"key without cert", end("address a:1\ntls {\nkey c\n}"),
		"tls cert and tls key belong together",
	},
	{
		"insecure with ca", end("address a:1\ntls {\nca c\ninsecure_skip_verify\n}"),
		"insecure_skip_verify accepts any certificate",
	},
	{
		"insecure with server_name",
		end("address a:1\ntls {\nserver_name c\ninsecure_skip_verify\n}"),
		"insecure_skip_verify accepts any certificate",
	},

	{"prefix empty", lines("prefix \"\" # here"), "prefix takes one value"},
	{"prefix with a brace", lines("prefix a{b} # here"), `"a{b}" is not a prefix`, "wxgate:"},
	{"prefix with a star", lines("prefix wx* # here"), "is not a prefix"},
	{"prefix with a space", lines("prefix \"a b\" # here"), "is not a prefix"},
	{"prefix too long", lines("prefix " + strings.Repeat("a", 65) + " # here"), "is not a prefix"},

	{
		"duration of garbage", lines("read_timeout soon # here"),
		"read_timeout " + cureDuration, `"soon"`,
	},
	{"duration without unit", lines("write_timeout 30 # here"), "write_timeout " + cureDuration},
	{"duration zero", lines("dial_timeout 0s # here"), "dial_timeout " + cureDuration},
	{"duration negative", lines("dial_timeout -1s # here"), "dial_timeout " + cureDuration},
	{
		"read_timeout too short", lines("read_timeout 1ns # here"),
		"read_timeout takes a duration from 10ms to 2s, not 1ns; leave it out for the default",
	},
	{
		"read_timeout too long", lines("read_timeout 5m # here"),
		"read_timeout takes a duration from 10ms to 2s, not 5m0s",
	},
	{
		"write_timeout too short", lines("write_timeout 99ms # here"),
		"write_timeout takes a duration from 100ms to 1m0s, not 99ms",
	},
	{
		"write_timeout too long", lines("write_timeout 61s # here"),
		"write_timeout takes a duration from 100ms to 1m0s, not 1m1s",
	},
	{
		"dial_timeout too short", lines("dial_timeout 1ms # here"),
		"dial_timeout takes a duration from 10ms to 1m0s",
	},
	{"duration missing", lines("dial_timeout # here"), "dial_timeout takes one value"},
}

func TestCaddyfile_Wrong_IsRefusedOnItsLine(t *testing.T) {
	cases := make([]caddytest.Wrong, len(wrongStores))
	for i, c := range wrongStores {
		text := caddytest.Option("seal_key {env.WX_SEAL_KEY}\nstore " + c[1])
		cases[i] = append(caddytest.Wrong{c[0], text}, c[2:]...)
	}
	caddytest.RunWrong(t, cases)
}
