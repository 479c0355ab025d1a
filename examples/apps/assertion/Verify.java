// Verifies an assertion with com.nimbusds:nimbus-jose-jwt. Not run by a test.
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import java.net.URI;
import java.util.Set;

public class Verify {
	public static void main(String[] args) throws Exception {
		var keys = JWKSourceBuilder.create(URI.create(System.getenv("JWKS")).toURL()).build();
		var expected = new JWTClaimsSet.Builder().issuer(System.getenv("ISSUER")).build();
		var claims = new DefaultJWTClaimsVerifier<SecurityContext>(
			System.getenv("AUDIENCE"), expected, Set.of("exp", "iat", "sub"));
		claims.setMaxClockSkew(30);
		var processor = new DefaultJWTProcessor<SecurityContext>();
		processor.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.ES256, keys));
		processor.setJWTClaimsSetVerifier(claims);
		System.out.println(processor.process(args[0], null).getSubject());
	}
}
