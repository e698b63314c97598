// What a JSON file says. The maps of JsonSlurper itself fill themselves when they are first read, and two threads that do
// so at once may find them half full: a task's settings would lack an option, and its hash would be another.
def json(path) {
    return new groovy.json.JsonSlurperClassic().parseText(path.text)
}
