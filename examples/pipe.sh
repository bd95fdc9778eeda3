#!/bin/sh
# Restores a video between two ffmpegs, so with any decoder, filter and encoder that they have.
#
#   sh examples/pipe.sh in.mp4 out.mp4
#
# Sound is copied from the source. Times become regular: a variable frame rate needs measnet-run by itself.
set -eu

ffmpeg -nostdin -v error -i "$1" -map 0:v:0 -f yuv4mpegpipe -pix_fmt yuv420p - |
    measnet-run - -o - |
    ffmpeg -nostdin -v error -y -i - -i "$1" -map 0:v -map '1:a?' -c:v libx264 -c:a copy "$2"
