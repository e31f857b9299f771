// The line in the pictures and the words follow whichever player plays the take that is shown; a click in a picture goes there.
(() => {
  const inside = (audio, ...ids) => ids.some((id) => audio.closest("#" + id));

  function follow(audio) {
    const result = document.querySelector("#result");
    if (!result || !inside(audio, "player", "live")) return;
    const now = audio.currentTime;
    for (const canvas of result.querySelectorAll(".canvas[data-seconds]")) {
      const head = canvas.querySelector(".playhead");
      head.hidden = audio.ended || (audio.paused && now === 0);
      head.style.left = Math.min(100, (100 * now) / canvas.dataset.seconds) + "%";
    }
    for (const word of result.querySelectorAll(".words [data-start]")) {
      const said = now >= word.dataset.start && now < word.dataset.end && !audio.ended;
      word.classList.toggle("now", said);
    }
  }

  let playing = null;
  function frame() {
    if (!playing) return;
    follow(playing);
    if (playing.paused || playing.ended) playing = null;
    else requestAnimationFrame(frame);
  }

  document.addEventListener(
    "play",
    (event) => {
      const audio = event.target;
      if (!(audio instanceof HTMLAudioElement)) return;
      // one voice at a time
      for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
      playing = audio;
      requestAnimationFrame(frame);
    },
    true,
  );
  for (const name of ["timeupdate", "ended", "seeked"])
    document.addEventListener(name, (event) => event.target instanceof HTMLAudioElement && follow(event.target), true);

  document.addEventListener("click", (event) => {
    const canvas = event.target.closest("#result .canvas[data-seconds]");
    const word = event.target.closest("#result .words [data-start]");
    const audio = document.querySelector("#player audio");
    if (!audio || !(canvas || word)) return;
    if (word) audio.currentTime = Number(word.dataset.start);
    else {
      const box = canvas.getBoundingClientRect();
      audio.currentTime = ((event.clientX - box.left) / box.width) * canvas.dataset.seconds;
    }
    audio.play();
  });

  // A against B: the other one goes on at the same share of its length
  window.barkCompare = (id) => {
    const own = document.querySelector(`#player_${id} audio`);
    const other = document.querySelector(`#player_${id === "a" ? "b" : "a"} audio`);
    if (!own) return;
    if (other && !other.paused && other.duration && own.duration)
      own.currentTime = Math.min(0.98, other.currentTime / other.duration) * own.duration;
    else own.currentTime = 0;
    if (other) other.pause();
    own.play();
  };
})();
