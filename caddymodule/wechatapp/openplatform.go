package wechatapp

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// defaultOpenPlatform is what operators call the group of the mini programs without a line
// open_platform. Its name at rest is empty, as in the blocks of earlier releases.
const defaultOpenPlatform = "default"

var openPlatformPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$`)

// checkOpenPlatform refuses a name that is no name of a group. An AppID names the group of
// a merchant.
func checkOpenPlatform(name string) error {
	if !openPlatformPattern.MatchString(name) || appIDPattern.MatchString(name) {
		return fmt.Errorf("open_platform %q is no name of 1 to 32 letters, digits, - and _, "+
			"or is an AppID: choose any other name for the Open Platform account", name)
	}
	return nil
}

// group returns the name of the mini program's group at rest.
func (m MiniProgram) group() string {
	if m.OpenPlatform == defaultOpenPlatform {
		return ""
	}
	return m.OpenPlatform
}

// groups returns which mini programs share unionids: nil when all do.
func (a *App) groups() *session.Groups {
	names := make(map[string]string, len(a.apps))
	several := len(a.Components) > 0
	for i, m := range a.Apps { // a.apps has the same order
		names[a.apps[i].ID] = m.group()
		several = several || m.group() != ""
	}
	if !several {
		return nil
	}
	return &session.Groups{Names: names}
}

// accounts returns the names of the configured groups, sorted.
func (a *App) accounts() (names []string) {
	for _, m := range a.Apps {
		names = append(names, cmp.Or(m.OpenPlatform, defaultOpenPlatform))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Person returns whom an operator means by a unionid and the name of an Open Platform
// account, which is empty where there is one account only. The name may be the appid of
// a mini program that is not configured: of a merchant, or of one configured earlier.
func (a *App) Person(unionID, platform string) (session.Person, error) {
	who := session.Person{UnionID: unionID}
	names, merchants := a.accounts(), len(a.Components) > 0
	choice := strings.Join(names, ", ")
	if merchants {
		choice = strings.Join(append(names, "the appid of a merchant"), ", ")
	}
	switch {
	case platform == "" && len(names) == 1 && !merchants:
		platform = names[0]
	case platform == "":
		return who, errors.New("a unionid means a person of one Open Platform account, and " +
			"there are several: name one with open_platform: " + choice)
	case slices.Contains(names, platform):
	case appIDPattern.MatchString(platform) && a.groups().Of(platform) == platform:
	default:
		return who, errors.New("no such Open Platform account is configured: there is " + choice)
	}
	who.OpenPlatform = MiniProgram{OpenPlatform: platform}.group()
	return who, nil
}

// FormerPerson is Person that takes any name of an account, be it configured or not.
func (a *App) FormerPerson(unionID, platform string) (session.Person, error) {
	if platform == "" {
		return a.Person(unionID, platform)
	}
	group := MiniProgram{OpenPlatform: platform}.group()
	return session.Person{UnionID: unionID, OpenPlatform: group}, nil
}
