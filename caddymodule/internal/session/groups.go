package session

// Groups says which Open Platform account each mini program belongs to. A unionid
// means a person only within one account. Nil Groups are one group of all mini
// programs, whose name is empty.
type Groups struct {
	// Names has the name of the group of each configured mini program, by its appid.
	// The group of any other is a group of its own, named after its appid: the
	// merchants of a third-party platform have accounts of their own.
	Names map[string]string
}

// Of returns the group of a mini program.
func (g *Groups) Of(appID string) string {
	if g == nil {
		return ""
	}
	if name, ok := g.Names[appID]; ok {
		return name
	}
	return appID
}

// Person is all users with a unionid in the mini programs of one group.
type Person struct {
	UnionID string `json:"unionid,omitempty"`

	// OpenPlatform is the name of the group.
	OpenPlatform string `json:"open_platform,omitempty"`
}

// person returns who a user of a mini program is by a unionid.
func (s *Service) person(appID, unionID string) Person {
	return Person{UnionID: unionID, OpenPlatform: s.cfg.Groups.Of(appID)}
}
