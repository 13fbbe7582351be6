-- What is kept of a runtime's last turn, so that it can be repeated, and of a task that was handed over since.

local SESSION = '>c8Hc0'
local NO_SESSION = '\0\0\0\0\0\0\0\0\0\0'

-- Number of the turn, 8 bytes; the task handed over since, or ''; the refused outcomes, packed.
local function unpack_session(packed)
  local turn, handed, rest = struct.unpack(SESSION, packed)
  return turn, handed, packed:sub(rest)
end

local function pack_session(turn, handed, refused) return struct.pack(SESSION, turn, #handed, handed) .. refused end

-- Returns the number in the mark of a claim handed over after a turn; no turn has it.
local function handed_after(turn) return string.char(turn:byte() + 128) .. turn:sub(2) end
