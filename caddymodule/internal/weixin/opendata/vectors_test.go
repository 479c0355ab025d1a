package opendata_test

// Published and synthetic vectors: WECHAT.md 3.1, 3.2, 4.

const (
	demoApp    = "wx4f4bc4dec97d474b"
	demoUser   = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
	demoUnion  = "ocMvos6NjeKLIBqg5Mr9QjxrP1FA"
	demoTime   = 1477314187
	commonKey  = "AAECAwQFBgcICQoLDA0ODw=="
	commonIV   = "EBESExQVFhcYGRobHB0eHw=="
	foreignApp = "wxffffffffffffffff"
)

type vector struct {
	name, key, iv, sealed, object string
}

var (
	d1 = vector{
		"D1", "tiihtNczf5v6AKRyjwEUhQ==", "r7BXXKkLb8qrSNn05n0qiA==",
		"CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdbB+3hVbJSRgv+4lGOETKUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJXwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew==",
		`{"openId":"oGZUI0egBJY1zhBYw2KhdUfwVJJE","nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/aSKcBBPpibyKNicHNTMM0qJVh8Kjgiak2AHWr8MHM4WgMEm7GFhsf8OYrySdbvAMvTsw3mo8ibKicsnfN5pRjl1p8HQ/0","unionId":"ocMvos6NjeKLIBqg5Mr9QjxrP1FA","watermark":{"timestamp":1477314187,"appid":"wx4f4bc4dec97d474b"}}`,
	}
	d2 = vector{
		"D2", "7MG7jbTToVVRWRXVA885rg==", "TarMFjnzHVxy8pdS93wQbw==",
		"BY6VOgcWbwGcyrunK0ECWI8rnDsT69DucZ+M78tc1aL9aM/3bEAHFYd4fu7kRjWhD4YfjObw44T9vUqKyHIjbKs6hvtEasZZEIW35x4a91xVgN48ZqZ7MTQqUlP13kDUlkuwYh+/8g8yceu4kNbjowYrhihx+SV7CfjKCveJ7TSepr5Z7aLv1o+rfeelfOwn++WN/YoQsuZ6S3L4fWlWe5DAAUnFUI6cJvxxCohVzbrVXhyH2AqQdSjH2WnMYFeaGFIbcoxMznlk7oEwFn+hBj63dyT/swdYQfEdzuyCBmKXy8d6l1RKVX6Y65coTD8kIlbr+FKsqYrXVUIUBSwehqYuOdhYWZ9Bntl5DWU1oqzAPCnMn2cAIoQpQPKP7IGSxMOvCNAMhVXbE7BvnWuVuGF+AM5tXAa9IVUhcMImGwLQqm4iV5uBd+5OcFObh3A4VJk9iBCBWSkBHa/rV9CVoY0bFv2F9/2Hv82++Ybl274=",
		"",
	}
	d3 = vector{
		"D3", commonKey, commonIV,
		"aLhedzo+Z6es5zW+YHo9sgkoobhypSEeViQBPmmCx3fmcZGKbataj/52/+U/sVY3AiF2KzOGsSF26s6H1VwLALPpPqvznm6/Yrci88llVSl0bwplNsmm05X71JB++CQv7JVek0hwIVWnfpOk5EL3KfoGLnVXGOpNLSyidabVH6ReLoTdAsZkoun0HS27FPMsy6EZRvEHlTwWjQGREE2Kjg==",
		`{"phoneNumber":"13580006666","purePhoneNumber":"13580006666","countryCode":"86","watermark":{"timestamp":1477314187,"appid":"wx4f4bc4dec97d474b"}}`,
	}
	d4 = vector{
		"D4", commonKey, commonIV,
		"6CDpDKcFFq5KYH0DPC1IOKSDuEtAp743lWdLHUCloWihleRLlYWFixgMyqQt8ClCgzyti1A3+StPKFwo9rSJkbRYdztjxN0n7592ouX2wNxW/bGoEKOMud1S+zYFkJNNAvW9cxc2Rw02Y3RoO54N+dn7RnrVd1fk4lkP2JQ4Y7+N9yB5TtmjZid+ICrGbmyWldcrWYftDPNJYSYDbs1OSg==",
		`{"stepInfoList":[{"timestamp":1445866601,"step":100},{"timestamp":1445876601,"step":120}],"watermark":{"timestamp":1477314187,"appid":"wx4f4bc4dec97d474b"}}`,
	}
	d5 = vector{"D5", commonKey, commonIV, "S+Xe+uPoEBTjCSduZSmD9akAyPJB1z367SOVX+G/Ywg=", `{"watermark":{}}`}
	d6 = vector{
		"D6", commonKey, commonIV,
		"DZ16/snG+LgyE8FCxLUr7+0W7BeTIQ2O/ByU5WsMFAnW1I5ZGrgu6UKro7Dx8XDWmB8+0XFxBZJmqfXC6qVa141kTZEsHgLzqNOGCoUhhD5CDkh2HL14bQiWwADePp+tyBQAmK0t4M+GIbAn0sg3cQ==",
		`{"openId":"o0000000000000000000000000000","watermark":{"timestamp":1477314187,"appid":"wxffffffffffffffff"}}`,
	}
)

// The signature vector S1.
const (
	s1Key  = "HyVFkGl5F5OQWJZZaNzBBg=="
	s1Data = `{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtpujxyzYsrztuuICqIM5ibXQ/0"}`
	s1Sum  = "75e81ceda165f4ffa64f4068af58c64b8f54b88c"
)
