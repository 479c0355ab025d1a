package weixintest

// Seal lets the published vectors, which fix the iv, be recomputed.
var Seal = seal
