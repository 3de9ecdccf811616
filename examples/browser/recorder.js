// Runs beside the audio: sends what the microphone hears, mono, in blocks.

const BLOCK = 4096;

class Recorder extends AudioWorkletProcessor {
  block = new Float32Array(BLOCK);
  filled = 0;

  process([channels]) {
    for (let i = 0; channels.length && i < channels[0].length; i++) {
      this.block[this.filled++] = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
      if (this.filled === BLOCK) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
