// Values: what a JSON file says, and how a value becomes a word of a command.

// The maps of JsonSlurper itself fill themselves when they are first read, and two threads that do so at once may find them
// half full: a task's settings would lack an option, and its hash would be another.
def json(path) {
    return new groovy.json.JsonSlurperClassic().parseText(path.text)
}

// One word of a shell command, whatever is in it: names, paths and parameters are data, never text of a script.
def word(value) {
    return "'" + "${value}".replace("'", "'\\''") + "'"
}

// The same of a list or map, which Python reads again.
def json_word(value) {
    return word(groovy.json.JsonOutput.toJson(value))
}
