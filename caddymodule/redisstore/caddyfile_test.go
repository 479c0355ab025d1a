package redisstore

import (
	"bytes"
	"encoding/json"
	goflag "flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

var update = goflag.Bool("update", false, "write the adapted JSON into testdata/*.caddyfiletest")

const tenDashes = "\n----------\n"

// TestAdaptGolden holds what each Caddyfile becomes, that it is formatted, and that what it becomes is a configuration that Caddy takes.
func TestAdaptGolden(t *testing.T) {
	setEnvironment(t)
	names, err := filepath.Glob("testdata/*.caddyfiletest")
	if err != nil || len(names) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".caddyfiletest"), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			text, want, ok := strings.Cut(string(b), tenDashes)
			if !ok {
				t.Fatal("no line of ten dashes")
			}
			text += "\n"
			out, warnings, err := adapt(text)
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			if got := string(caddyfile.Format([]byte(text))); got != text {
				t.Error("it is not formatted")
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, out, "", "\t"); err != nil {
				t.Fatal(err)
			}
			pretty.WriteByte('\n')
			if *update {
				if err := os.WriteFile(name, []byte(text[:len(text)-1]+tenDashes+pretty.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got := pretty.String(); got != want {
				t.Errorf("adapted to\n%s\nwant\n%s", got, want)
			}
			if strings.Contains(pretty.String(), canary) {
				t.Error("a secret is written out")
			}
			if err := caddy.Validate(load(t, pretty.String())); err != nil {
				t.Errorf("refused by Validate: %v", err)
			}
		})
	}
}

// TestEveryFieldReachable holds that the Caddyfile can set every field: the golden files do.
func TestEveryFieldReachable(t *testing.T) {
	said := make(map[string]bool)
	names, _ := filepath.Glob("testdata/*.caddyfiletest")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, adapted, _ := strings.Cut(string(b), tenDashes)
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
	for _, typ := range []struct {
		prefix string
		t      reflect.Type
	}{{"", reflect.TypeFor[Store]()}, {"tls.", reflect.TypeFor[TLS]()}, {"sentinel.", reflect.TypeFor[Sentinel]()}} {
		for f := range typ.t.Fields() {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && !said[typ.prefix+name] {
				t.Errorf("nothing in the Caddyfiles sets %s%s", typ.prefix, name)
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

// wrong is what follows `store`, refused on the line that ends in "# here" by a message that holds all of want.
type wrong struct {
	name, text string
	want       []string
}

const (
	cureAddress  = "write host:port, such as 127.0.0.1:6379"
	cureSecret   = "name it instead, as {env.NAME} or {file./run/secrets/name}"
	cureDuration = "takes a duration above zero such as 80ms or 2s"
	known        = "address, username, password, db, tls, sentinel, cluster, prefix, dial_timeout, read_timeout or write_timeout"
)

// lines is a store with one good address and the given lines; end one for mistakes that only the whole block shows.
func lines(text string) string { return "redis {\naddress a:1\n" + text + "\n}" }
func end(text string) string   { return "redis {\n" + text + "\n} # here" }

var wrongStores = []wrong{
	{"nothing", "redis # here", []string{"where is the server", "store redis 127.0.0.1:6379"}},
	{"empty block", "redis { # here\n}", []string{"where is the server", "store redis 127.0.0.1:6379"}},
	{"unknown word", lines("adress b:1 # here"), []string{`unknown word "adress"`, known}},
	{"unknown word in tls", lines("tls {\ncertificate x # here\n}"), []string{`unknown word "certificate"`, "ca, cert, key, server_name or insecure_skip_verify"}},
	{"unknown word in sentinel", lines("sentinel {\nname x # here\n}"), []string{`unknown word "name"`, "master, username or password"}},
	{"block after a value", lines("username x { # here\n}"), []string{"the word before this { takes no block"}},
	{"argument of tls", lines("tls on # here"), []string{"tls takes a block and no value"}},
	{"argument of sentinel", lines("sentinel mymaster # here"), []string{"sentinel takes a block and no value"}},
	{"argument of cluster", lines("cluster yes # here"), []string{"cluster takes no value"}},
	{"argument of insecure_skip_verify", lines("tls {\ninsecure_skip_verify true # here\n}"), []string{"insecure_skip_verify takes no value"}},

	{"address missing", "redis {\naddress # here\n}", []string{"address takes at least one host:port"}},
	{"address without port", "redis localhost # here", []string{`"localhost" is not an address`, cureAddress}},
	{"address without host", "redis :6379 # here", []string{`":6379" is not an address`, cureAddress}},
	{"address with a word as port", "redis localhost:redis # here", []string{"is not an address", cureAddress}},
	{"address with port 0", "redis localhost:0 # here", []string{"is not an address", cureAddress}},
	{"address with a large port", "redis localhost:65536 # here", []string{"is not an address", cureAddress}},
	{"address of IPv6 without brackets", "redis fd00::1:6379 # here", []string{"is not an address", cureAddress}},
	{"addresses with a comma", "redis a:1,b:2 # here", []string{"is not an address", cureAddress}},
	{"address as URL", "redis redis://user:" + canary + "@localhost:6379/0 # here", []string{"no URL", "words of their own"}},
	{"address with a password", "redis " + canary + "@localhost:6379 # here", []string{"no URL"}},
	{"second address bad", "redis {\naddress a:1 b # here\n}", []string{`"b" is not an address`, cureAddress}},
	{"several addresses", "redis a:1 b:1 # here", []string{"several addresses", "sentinel { master <name> } or cluster"}},
	{"address twice in a line", end("address a:1 a:1\ncluster"), []string{"address a:1 is given twice"}},
	{"socket beside an address", end("address /run/redis.sock a:1\ncluster"), []string{"a unix socket leads to one server"}},
	{"socket with tls", end("address /run/redis.sock\ntls"), []string{"a unix socket leads to one server"}},
	{"socket with cluster", end("address /run/redis.sock\ncluster"), []string{"a unix socket leads to one server"}},

	{"address twice", lines("address b:1 # here"), []string{"address is given twice"}},
	{"address in both places", "redis a:1 {\naddress b:1 # here\n}", []string{"address is given twice"}},
	{"username twice", lines("username a\nusername b # here"), []string{"username is given twice"}},
	{"password twice", lines("password {env.A}\npassword {env.B} # here"), []string{"password is given twice"}},
	{"db twice", lines("db 1\ndb 2 # here"), []string{"db is given twice"}},
	{"tls twice", lines("tls\ntls # here"), []string{"tls is given twice"}},
	{"sentinel twice", lines("sentinel {\nmaster m\n}\nsentinel { # here\n}"), []string{"sentinel is given twice"}},
	{"cluster twice", lines("cluster\ncluster # here"), []string{"cluster is given twice"}},
	{"prefix twice", lines("prefix a:\nprefix b: # here"), []string{"prefix is given twice"}},
	{"read_timeout twice", lines("read_timeout 1s\nread_timeout 2s # here"), []string{"read_timeout is given twice"}},
	{"ca twice", lines("tls {\nca a\nca b # here\n}"), []string{"ca is given twice"}},
	{"master twice", lines("sentinel {\nmaster a\nmaster b # here\n}"), []string{"master is given twice"}},

	{"username missing", lines("username # here"), []string{"username takes one value"}},
	{"two usernames", lines("username a b # here"), []string{"username takes one value"}},
	{"username without password", end("address a:1\nusername gate"), []string{"username needs a password", "password {env.REDIS_PASSWORD}"}},
	{"sentinel's username without password", end("address a:1\nsentinel {\nmaster m\nusername gate\n}"), []string{"username of sentinel needs a password"}},
	{"literal password", lines("password " + canary + " # here"), []string{"the password is written out", cureSecret}},
	{"password from {$VAR}", lines("password {$CANARY_SECRET} # here"), []string{"the password is written out", cureSecret}},
	{"password half a placeholder", lines("password x{env.A} # here"), []string{cureSecret}},
	{"literal password of sentinel", lines("sentinel {\npassword " + canary + " # here\n}"), []string{"the password of sentinel is written out", cureSecret}},

	{"db of garbage", lines("db one # here"), []string{"db takes a whole number from 0", `"one"`}},
	{"db negative", lines("db -1 # here"), []string{"db takes a whole number from 0", `"-1"`}},
	{"db too large", lines("db 99999999999 # here"), []string{"db takes a whole number from 0"}},
	{"db with cluster", end("address a:1\ndb 1\ncluster"), []string{"a cluster has only database 0", "prefix"}},
	{"sentinel with cluster", end("address a:1\ncluster\nsentinel {\nmaster m\n}"), []string{"cluster and sentinel do not go together"}},
	{"sentinel without master", end("address a:1\nsentinel"), []string{"sentinel needs the name of the primary: master <name>"}},
	{"cert without key", end("address a:1\ntls {\ncert c\n}"), []string{"tls cert and tls key belong together"}},
	{"key without cert", end("address a:1\ntls {\nkey c\n}"), []string{"tls cert and tls key belong together"}},
	{"insecure with ca", end("address a:1\ntls {\nca c\ninsecure_skip_verify\n}"), []string{"insecure_skip_verify accepts any certificate"}},
	{"insecure with server_name", end("address a:1\ntls {\nserver_name c\ninsecure_skip_verify\n}"), []string{"insecure_skip_verify accepts any certificate"}},

	{"prefix empty", lines("prefix \"\" # here"), []string{"prefix takes one value"}},
	{"prefix with a brace", lines("prefix a{b} # here"), []string{`"a{b}" is not a prefix`, "wxgate:"}},
	{"prefix with a star", lines("prefix wx* # here"), []string{"is not a prefix"}},
	{"prefix with a space", lines("prefix \"a b\" # here"), []string{"is not a prefix"}},
	{"prefix too long", lines("prefix " + strings.Repeat("a", 65) + " # here"), []string{"is not a prefix"}},

	{"duration of garbage", lines("read_timeout soon # here"), []string{"read_timeout " + cureDuration, `"soon"`}},
	{"duration without unit", lines("write_timeout 30 # here"), []string{"write_timeout " + cureDuration}},
	{"duration zero", lines("dial_timeout 0s # here"), []string{"dial_timeout " + cureDuration}},
	{"duration negative", lines("dial_timeout -1s # here"), []string{"dial_timeout " + cureDuration}},
	{"read_timeout too short", lines("read_timeout 1ns # here"), []string{"read_timeout takes a duration from 10ms to 2s, not 1ns; leave it out for the default"}},
	{"read_timeout too long", lines("read_timeout 5m # here"), []string{"read_timeout takes a duration from 10ms to 2s, not 5m0s"}},
	{"write_timeout too short", lines("write_timeout 99ms # here"), []string{"write_timeout takes a duration from 100ms to 1m0s, not 99ms"}},
	{"write_timeout too long", lines("write_timeout 61s # here"), []string{"write_timeout takes a duration from 100ms to 1m0s, not 1m1s"}},
	{"dial_timeout too short", lines("dial_timeout 1ms # here"), []string{"dial_timeout takes a duration from 10ms to 1m0s"}},
	{"duration missing", lines("dial_timeout # here"), []string{"dial_timeout takes one value"}},
}

// TestWrongCaddyfile: every line is refused where it stands, by a message that tells the cure and no secret.
func TestWrongCaddyfile(t *testing.T) {
	t.Setenv("CANARY_SECRET", canary)
	for _, c := range wrongStores {
		t.Run(c.name, func(t *testing.T) {
			text := "{\n\twechat {\n\t\tapp " + appID + " {env.WX_SECRET}\nseal_key {env.WX_SEAL_KEY}\nstore " + c.text + "\n\t}\n}\n\n:80 {\n\twechat_auth\n}\n"
			line := 0
			for i, l := range strings.Split(text, "\n") {
				if strings.Contains(l, "# here") {
					line = i + 1
				}
			}
			out, _, err := adapt(text)
			if err == nil {
				t.Fatalf("accepted as %s", out)
			}
			for _, want := range append(c.want, fmt.Sprintf("Caddyfile:%d", line)) {
				if !strings.Contains(err.Error()+"\n", want) {
					t.Errorf("message lacks %q:\n%s", want, err)
				}
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("message shows the secret: %s", err)
			}
		})
	}
}
