package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// manifest is the part of xcaddy's Builder that wxbuild honours, under the same JSON keys.
type manifest struct {
	OS           string        `json:"os"`
	Arch         string        `json:"arch"`
	ARM          string        `json:"arm"`
	Cgo          bool          `json:"cgo"`
	CaddyVersion string        `json:"caddy_version"`
	Plugins      []plugin      `json:"plugins"`
	Replacements []replacement `json:"replacements"`
	BuildFlags   string        `json:"build_flags"`

	// file is the manifest's name as the user gave it, for messages.
	file string
}

// plugin names a package to import. The key says module_path because xcaddy's does; it is a package path.
type plugin struct {
	Path    string `json:"module_path"`
	Version string `json:"version"`
}

// replacement makes the build take module Old from directory New.
type replacement struct {
	Old string `json:"old"`
	New string `json:"new"`
}

// knownKeys lists the keys that an object may have, by the object's place in the manifest.
var knownKeys = map[string][]string{
	"":             {"os", "arch", "arm", "cgo", "caddy_version", "plugins", "replacements", "build_flags"},
	"plugins":      {"module_path", "version"},
	"replacements": {"old", "new"},
}

// readManifest reads and decodes a manifest strictly: an unknown key, a repeated key or a value of the wrong type is an
// error that names the file and the key.
func readManifest(file string) (*manifest, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w (name it with -manifest)", err)
	}
	return decodeManifest(file, data)
}

func decodeManifest(file string, data []byte) (*manifest, error) {
	m := &manifest{file: file}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, m.decodeError(err, data)
	}
	// Unmarshal has proved the syntax. It would pass over unknown keys, fold their case and let the last of two equal
	// keys win, so the keys are judged separately.
	dec := json.NewDecoder(bytes.NewReader(data))
	if first, err := dec.Token(); err != nil || first != json.Delim('{') { // null fits every type
		return nil, m.wrong("", "is not a JSON object")
	}
	if err := m.checkObject(dec, ""); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *manifest) decodeError(err error, data []byte) error {
	if wrongType, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return m.wrong(wrongType.Field, "must be of type %s, not %s", jsonType(wrongType.Type.Kind()), wrongType.Value)
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(data[:syntax.Offset], []byte("\n"))
		return m.wrong("", "is not JSON: line %d: %v", line, err)
	}
	return m.wrong("", "is not JSON: %v", err)
}

func jsonType(kind reflect.Kind) string {
	switch kind {
	case reflect.Struct:
		return "object"
	case reflect.Slice:
		return "array"
	default:
		return kind.String()
	}
}

// checkObject judges the keys of the object whose opening brace has just been read. The manifest nests no deeper than
// arrays of flat objects.
func (m *manifest) checkObject(dec *json.Decoder, place string) error {
	known := knownKeys[place]
	var seen []string
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return m.wrong(place, "is not JSON: %v", err)
		}
		key, _ := token.(string)
		if !slices.Contains(known, key) {
			return m.wrong(join(place, key), "unknown key; wxbuild honours %s", strings.Join(known, ", "))
		}
		if slices.Contains(seen, key) {
			return m.wrong(join(place, key), "given twice; keep one")
		}
		seen = append(seen, key)
		if err := m.checkValue(dec, key); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

func (m *manifest) checkValue(dec *json.Decoder, key string) error {
	token, err := dec.Token()
	if err != nil || token != json.Delim('[') {
		return err
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		if token != json.Delim('{') {
			return m.wrong(key, "must hold objects, not %v", token)
		}
		if err := m.checkObject(dec, key); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// dir is the directory that the manifest's relative paths start from.
func (m *manifest) dir() string { return filepath.Dir(m.file) }

// wrong makes an error that names the file and the key.
func (m *manifest) wrong(key, format string, args ...any) error {
	if key != "" {
		key += ": "
	}
	return fmt.Errorf("%s: %s%s", m.file, key, fmt.Sprintf(format, args...))
}

func join(place, key string) string {
	if place == "" {
		return key
	}
	return place + "." + key
}
