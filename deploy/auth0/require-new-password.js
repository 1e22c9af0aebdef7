/**
 * Auth0 Action for the trigger "post-login": nobody signs in with a password that an administrator chose.
 *
 * Usher's handler force_password_change sets the flag in app_metadata, clear_reset_flag takes it back. The name is that
 * of USHER_AUTH0__RESET_FLAG. Beside it Usher writes from when on a change counts, so that whoever has just made one is not
 * turned away until Usher has heard of it.
 */
const FLAG = "needsPasswordReset";
const MESSAGE = "Please set a new password first: choose Forgot Password.";

exports.onExecutePostLogin = async (event, api) => {
  const metadata = event.user.app_metadata || {};
  if (metadata[FLAG] !== true || event.connection.strategy !== "auth0") {
    return;
  }
  const changed = Date.parse(event.user.last_password_reset);
  const since = Date.parse(metadata[`${FLAG}Since`]);
  if (changed > since) {
    api.user.setAppMetadata(FLAG, false);
    return;
  }
  api.access.deny(MESSAGE);
};
