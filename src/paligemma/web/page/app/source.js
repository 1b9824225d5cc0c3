// Where pictures come from: a file, a drop, the clipboard, the camera. Each ends in one call with a Blob.

const element = (id) => document.getElementById(id);

export function listen(onPicture, onError) {
  element("file").addEventListener("change", ({ target }) => {
    if (target.files[0]) onPicture(target.files[0]);
    target.value = "";
  });
  const drop = element("drop");
  for (const kind of ["dragover", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault(); // else the browser would leave the page for the picture
      drop.classList.toggle("over", kind === "dragover");
      const file = kind === "drop" && [...event.dataTransfer.files].find(isPicture);
      if (file) onPicture(file);
      else if (kind === "drop") onError(new Error("What was dropped is no picture."));
    });
  }
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("paste", ({ clipboardData }) => {
    const file = [...clipboardData.files].find(isPicture);
    if (file) onPicture(file);
  });
  listenToCamera(onPicture, onError);
}

const isPicture = (file) => file.type.startsWith("image/");

function listenToCamera(onPicture, onError) {
  const [camera, shoot, live] = ["camera", "shoot", "live"].map(element);
  if (!navigator.mediaDevices?.getUserMedia) return; // only on secure addresses
  camera.hidden = false;
  const close = () => {
    for (const track of live.srcObject?.getTracks() ?? []) track.stop();
    live.srcObject = null;
    show(false);
  };
  const show = (on) => {
    live.hidden = !on;
    shoot.hidden = true; // until there is something to take
    camera.textContent = on ? "Close the camera" : "Camera";
    const full = element("drop").classList.contains("full"); // there is a picture
    element("view").hidden = on || !full;
    element("hint").hidden = on || full;
  };
  const failed = () => {
    close();
    onError(new Error("The camera cannot be used: there is none, or the browser was told to refuse."));
  };
  let asked = false; // the person, who may take a while to allow it
  camera.addEventListener("click", async () => {
    if (live.srcObject) return close();
    if (asked) return;
    asked = true;
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } }).catch(() => null);
    asked = false;
    if (!stream) return failed();
    live.srcObject = stream;
    show(true);
    const plays = await live.play().then(() => true, () => false);
    if (live.srcObject !== stream) return; // closed before its first picture came
    if (plays) shoot.hidden = false;
    else failed();
  });
  shoot.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [live.videoWidth, live.videoHeight];
    canvas.getContext("2d").drawImage(live, 0, 0);
    close();
    canvas.toBlob((blob) => onPicture(blob), "image/png");
  });
}
